import pytest

from lightning_green.check.differences import first_difference, varying_attributes, varying_fields


def batch(epoch, index, run=0, fit=0, **values):
    content = {"attributes": {"module.kl": "0.1"}, "samples": "s", "random": {"torch": "r"}, "settings": {"lr": "1"}}
    return {"kind": "point", "run": run, "fit": fit, "at": [epoch, index, "batch"], **content, **values}


def step(epoch, index, run=0, fit=0, **values):
    content = {"loss": "l", "weights": f"w{epoch}{index}", "metrics": {"loss": (0.5).hex()}}
    return {"kind": "point", "run": run, "fit": fit, "at": [epoch, index, "step"], **content, **values}


def stopped(where):
    return {"kind": "stopped", "run": 0, "fit": 0, "stop": where}


def straight():
    return [record for i in range(4) for record in (batch(0, i), step(0, i))]


def test_equal_traces_have_no_difference():
    other = straight()
    other.insert(4, stopped("stopped after batch 2 of epoch 0"))
    assert first_difference(straight(), other) is None


def test_repeated_batches_of_a_killed_process_are_compared_too():
    other = [*straight()[:4], stopped("killed"), *straight()[2:]]
    assert first_difference(straight(), other) is None
    other[5] = step(0, 1, loss="other")
    assert first_difference(straight(), other).what == "loss"


def test_first_difference_in_order_of_cause():
    other = [*straight()[:4], stopped("stopped after batch 2 of epoch 0")]
    other += [batch(0, 2, samples="other", random={"torch": "other"}), *straight()[5:]]
    found = first_difference(straight(), other)
    assert (found.what, found.after) == ("samples", "stopped after batch 2 of epoch 0")
    assert found.describe() == "the samples of batch 2 of epoch 0"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (batch(0, 2, settings={"lr": "2"}), "a setting `lr` of batch 2 of epoch 0: 1, then 2"),
        (batch(0, 2, random={"torch": "x"}), "the random state `torch` of batch 2 of epoch 0: r, then x"),
        (batch(0, 2, settings={}), "a setting `lr` of batch 2 of epoch 0: 1, then nothing"),
    ],
)
def test_difference_in_words(record, text):
    assert first_difference(straight(), [*straight()[:4], record]).describe() == text


def test_metrics_are_shown_as_numbers():
    found = first_difference(straight(), [*straight()[:5], step(0, 2, metrics={"loss": (0.25).hex()})])
    assert found.describe() == "a logged metric `loss` of batch 2 of epoch 0: 0.5, then 0.25"


def test_attributes_of_the_batch_explain_a_difference_of_its_step():
    other = [*straight()[:4], batch(0, 2, attributes={"module.kl": "0.0"}), step(0, 2, loss="other")]
    found = first_difference(straight(), other)
    assert found.attributes == (("module.kl", "0.1", "0.0"),)
    assert first_difference(straight(), other, unstable={"module.kl"}).attributes == ()


def test_missing_and_additional_batches_differ():
    missing = first_difference(straight(), straight()[:-2])
    assert missing.describe() == "the other run never reached batch 3 of epoch 0"
    additional = first_difference(straight(), [*straight(), batch(0, 4)])
    assert additional.describe() == "only the other run reached batch 4 of epoch 0"


def test_runs_and_fits_are_compared_apart():
    two = [*straight(), batch(0, 0, run=1, samples="t"), batch(0, 0, fit=1, samples="u")]
    assert first_difference(two, list(reversed(two))) is None


def test_fields_and_attributes_that_differ_between_two_uninterrupted_runs():
    again = straight()
    again[1] = step(0, 0, metrics={"loss": (0.5).hex(), "time": (9.0).hex()})
    again[2] = batch(0, 1, attributes={"module.kl": "0.1", "module.began": "3"})
    assert varying_fields(straight(), again) == {("metrics", "time")}
    assert varying_attributes(straight(), again) == {"module.began"}
    assert first_difference(straight(), again, ignored=[("metrics", "time")]) is None
