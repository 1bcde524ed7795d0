"""Kubernetes around a training: the manifests of its Job, their rules, and the waker that starts suspended Jobs."""
