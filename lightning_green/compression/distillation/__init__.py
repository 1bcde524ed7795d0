"""Losses between a student and a teacher, adapters of features, and cached outputs of the teacher (pure torch)."""

from lightning_green.compression.distillation.adapters import Adapters
from lightning_green.compression.distillation.teacher_cache import TeacherCache
from lightning_green.compression.distillation.teachers import load_teacher

__all__ = [
    "Adapters",
    "TeacherCache",
    "load_teacher",
]
