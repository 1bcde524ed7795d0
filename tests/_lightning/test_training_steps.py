import inspect

from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green._lightning.training_steps import unwrap_training_step, wrap_training_step
from tests.helpers.trainers import batches, quiet_trainer


def test_wrapped_training_step_replaces_the_result_and_unwrapping_restores_the_method(tmp_path):
    calls = []

    class Model(BoringModel):
        def training_step(self, batch, batch_idx):
            calls.append("step")
            return super().training_step(batch, batch_idx)

    def after(result, batch):
        calls.append(tuple(batch.shape))
        return {"loss": 0.0 * result["loss"]}

    model = Model()
    wrap_training_step(model, lambda: calls.append("before"), after)
    assert list(inspect.signature(model.training_step).parameters) == ["batch", "batch_idx"]
    weight = model.layer.weight.detach().clone()
    quiet_trainer(tmp_path).fit(model, batches(4))
    assert calls == ["before", "step", (2, 32)] * 2
    assert (model.layer.weight == weight).all()
    unwrap_training_step(model)
    assert "training_step" not in model.__dict__
