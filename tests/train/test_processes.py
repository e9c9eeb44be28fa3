"""Two processes with gloo train as one does."""

from pathlib import Path

import pytest

from conftest import write_captions

COLORS = ["red", "tan", "sky", "mud"]


@pytest.mark.parametrize("texts", ["", "--text text.txt"])
def test_two_processes_train_as_one_does(texts, shell):
    """Captions and documents of equal length have equal target counts; then the mean of two halves is the mean."""
    write_captions("images", [{"image": f"images/{i}.png", "caption": f"a {COLORS[i % 4]} one"} for i in range(20)])
    Path("text.txt").write_text("\n\n".join(f"a fact of {color}" for color in COLORS * 3))
    options = "TINY IMAGES --vocab_size 257 --dropout 0 --log_interval 1 --steps 6 --eval_interval 3"
    options += f" {texts} --freeze vit --out"  # ViT does not see the text, and does not learn
    shell(f"train.py {options} one")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    status, out, error = shell.spawn(f"train.py {options} two", *torchrun)
    assert status == 0 and out.decode().count("eval 3/6") == 1, error.decode()  # one speaks
    one, two = shell.log("one"), shell.log("two")
    for name, rel in (("step", 0), ("val_loss", 1e-5), ("val_loss_shuffled", 1e-5), ("grad_norm", 1e-4)):
        ours, theirs = ([event[name] for event in log if name in event] for log in (one, two))
        assert ours == pytest.approx(theirs, rel=rel) and ours
