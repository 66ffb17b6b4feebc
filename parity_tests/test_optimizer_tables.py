"""The state of an optimizer of one's own model, by a Table; and optimizers that have a file of their own."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from convert.files import open_checkpoint

from .conftest import needs

TABLE = """table 1: nnx <-> torch
first.kernel: i o  <->  first.weight: o i
first.bias: o      <->  first.bias: o
norm.scale: c      <->  norm.weight: c
norm.bias: c       <->  norm.bias: c
last.kernel: i o   <->  last.weight: o i
last.bias: o       <->  last.bias: o
""".replace("kernel", "kernel")
HYPER = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1, "kind": "adamw"}
STATED = [word for name, value in HYPER.items() for word in ("--hyper", f"{name}={value}")]
RNG = np.random.default_rng(0)
BATCHES = [(RNG.standard_normal((4, 3)), RNG.standard_normal((4, 2))) for _ in range(10)]


def in_torch():
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(5, 2)  # defined in another order than it runs
            self.first = torch.nn.Linear(3, 5)
            self.norm = torch.nn.LayerNorm(5, eps=1e-6)

        def forward(self, x):
            return self.last(self.norm(self.first(x)))

    torch.manual_seed(0)
    model = Net().double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)

    def train(batches):
        for x, y in batches:
            optimizer.zero_grad()
            ((model(torch.from_numpy(x)) - torch.from_numpy(y)) ** 2).mean().backward()
            optimizer.step()

    return model, optimizer, train


def in_nnx():
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    jax.config.update("jax_enable_x64", True)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 5, rngs=rngs, param_dtype=jnp.float64)
            self.norm = nnx.LayerNorm(5, rngs=rngs, param_dtype=jnp.float64)
            self.last = nnx.Linear(5, 2, rngs=rngs, param_dtype=jnp.float64)

        def __call__(self, x):
            return self.last(self.norm(self.first(x)))

    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(0.01, weight_decay=0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        optimizer.update(model, nnx.grad(lambda model: ((model(x) - y) ** 2).mean())(model))

    def train(batches):
        for x, y in batches:
            step(model, optimizer, x, y)

    return model, optimizer, train


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "net.table"
    path.write_text("\n".join(line.replace(".", "/", 1) if "<->" in line else line for line in TABLE.splitlines()))
    return path


def compare(torch_model, nnx_model):
    from flax import nnx

    arrays = nnx.to_pure_dict(nnx.state(nnx_model))
    for name, tensor in torch_model.state_dict().items():
        layer, leaf = name.split(".")
        theirs = {"weight": "kernel" if layer != "norm" else "scale"}.get(leaf, leaf)
        array = np.asarray(arrays[layer][theirs])
        assert np.allclose(tensor.numpy(), array.T if theirs == "kernel" else array, rtol=1e-9, atol=1e-12), name


def test_a_model_of_ones_own_from_torch_to_nnx(table, run, tmp_path, monkeypatch):
    """The converted file is read as docs/training.md has it."""
    needs("torch")
    needs("flax")
    import flax
    import jax
    import torch
    from flax import nnx

    model, optimizer, train = in_torch()
    train(BATCHES[:5])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
    words = ["--table", table, tmp_path / "net.pt", "--reverse", "-o", tmp_path / "net.msgpack", "--with-optimizer"]
    code, _, err = run(*words, "--weights", "model")
    assert code == 0, err
    again, their_optimizer, go_on = in_nnx()
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    (snippet,) = re.findall(r"^(    saved = flax.*\n(?:    .*\n)*)", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    there = {"model": again, "optimizer": their_optimizer, "nnx": nnx, "jax": jax, "flax": flax, "Path": Path}
    exec(textwrap.dedent(snippet), there)
    go_on(BATCHES[5:])
    train(BATCHES[5:])
    compare(model, again)


def test_a_model_of_ones_own_from_nnx_to_torch(table, run, tmp_path):
    """torch's order of parameters is that of the model's code: a state_dict of it tells."""
    needs("torch")
    needs("flax")
    import torch
    from flax import nnx, serialization

    model, optimizer, train = in_nnx()
    train(BATCHES[:5])
    pure = {"params": nnx.to_pure_dict(nnx.state(model)), "optimizer": nnx.to_pure_dict(nnx.state(optimizer))}
    (tmp_path / "net.msgpack").write_bytes(serialization.to_bytes(pure_keys(pure)))
    again, their_optimizer, go_on = in_torch()
    torch.save(again.state_dict(), tmp_path / "new.pt")
    words = ["--table", table, tmp_path / "net.msgpack", "-o", tmp_path / "net.pt", "--with-optimizer", *STATED]
    code, _, err = run(*words, "--weights", "params")
    assert code == 2 and "--like new.pt" in err
    code, _, err = run(*words, "--weights", "params", "--like", tmp_path / "new.pt")
    assert code == 0, err
    saved = torch.load(tmp_path / "net.pt")
    assert saved["optimizer"]["param_groups"][0]["param_names"] == [name for name, _ in again.named_parameters()]
    weights, state = again.state_dict(), their_optimizer.state_dict()

    def under(place):
        return {place + name: tensor for name, tensor in weights.items()}

    for whole, place, rest in (
        ({"model": weights, "optimizer": state}, "model", ""),
        ({"ema": weights, "state_dict": weights, "epoch": 3}, "state_dict", " and set aside ema/"),
        ({"state_dict": under("model.") | under("ema_model.")}, "state_dict/model.", " and set aside state_dict/ema"),
        ({"state_dict": under("module.")}, "", ""),
        (under("model._orig_mod."), "", ""),
    ):
        torch.save(whole, tmp_path / "like.pt")
        code, _, err = run(*words[:4], tmp_path / "two.pt", *words[5:], "--weights", "params",
                           "--like", tmp_path / "like.pt", "--force")  # fmt: skip
        assert code == 0 and (f"like.pt: read its arrays under '{place}'{rest}" in err) == bool(rest), err
        two = torch.load(tmp_path / "two.pt")["optimizer"]
        assert two["param_groups"] == saved["optimizer"]["param_groups"]
    alone = ["--table", table, tmp_path / "net.msgpack", "--weights", "params", "-o", tmp_path / "alone.pt"]
    assert run(*alone)[0] == 0  # in the order of the Table's lines
    code, _, err = run(*words[:4], tmp_path / "two.pt", *words[5:], "--weights", "params",
                       "--like", tmp_path / "alone.pt", "--force")  # fmt: skip
    assert code == 2 and "alone.pt: is written by a conversion, in an order that need not be torch's" in err
    again.load_state_dict(saved["model"])
    their_optimizer.load_state_dict(saved["optimizer"])
    go_on(BATCHES[5:])
    train(BATCHES[5:])
    compare(again, model)


def pure_keys(tree):
    """msgpack's keys are texts."""
    return {str(key): pure_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def test_like_of_torch_supplies_a_buffer_and_shows_ties_and_sizes(run, tmp_path):
    """A strict load of the weights, and one of the optimizer, which counts a tied parameter once."""
    needs("torch")
    import torch

    def build(tie, buffer, width=3):
        net = torch.nn.Module()
        net.table, net.head = torch.nn.Embedding(5, width), torch.nn.Linear(width, 5, bias=False)
        if tie:
            net.head.weight = net.table.weight
        if buffer:
            net.register_buffer("mask", torch.rand(2, 2))
        return net

    source = build(tie=True, buffer=False)
    optimizer = torch.optim.AdamW(source.named_parameters(), lr=0.01)
    source.table.weight.sum().backward()
    optimizer.step()
    average = {"model_ema": source.state_dict()}
    torch.save({"model": source.state_dict(), "optimizer": optimizer.state_dict(), **average}, tmp_path / "net.pt")
    line, turned = "table.weight: v c = head.weight: v c", "head.weight: v c = table.weight: v c"
    (tmp_path / "net.table").write_text(f"table 1: torch <-> torch\n{turned} <-> {line}\ndrop <- mask\n")
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--weights", "model", "--with-optimizer"]
    for tie in (True, False):
        target = build(tie, buffer=True)
        torch.save(target.state_dict(), tmp_path / "new.pt")
        code, _, err = run(*words, "-o", tmp_path / "out.pt", "--like", tmp_path / "new.pt", "--force")
        assert code == 0 and "taken to be buffers, which no optimizer trains: mask" in err, err
        assert "model_ema lacks what the table drops: the file of --like fills it in the average, too: mask\n" in err
        assert ("get the same moments, as they are one parameter of the source" in err) is not tie
        saved = torch.load(tmp_path / "out.pt")
        assert all(entry["exp_avg"].all() for entry in saved["optimizer"]["state"].values())  # named as table.weight
        mask = target.mask.clone()
        target.load_state_dict(saved["model"])
        torch.optim.AdamW(target.parameters()).load_state_dict(saved["optimizer"])
        assert torch.equal(target.mask, mask) and torch.equal(target.table.weight, source.table.weight)
    torch.save(build(tie=True, buffer=True, width=4).state_dict(), tmp_path / "new.pt")
    code, _, err = run(*words, "-o", tmp_path / "out.pt", "--like", tmp_path / "new.pt", "--force")
    assert code == 1 and "has shape [5, 4]" in err


@pytest.mark.parametrize("around", ["_orig_mod.", "module.", "net.", "net._orig_mod."])
def test_an_optimizer_may_name_parameters_behind_wrappers(around, run, tmp_path):
    """The names are read as those of the weights are; not where a name may be that of two parameters, or of none."""
    needs("torch")
    import torch

    lines = [f"{name}: o i <-> x.{name}: o i" for name in ("first.weight", "last.weight", "weight")]
    (tmp_path / "net.table").write_text("\n".join(["table 1: torch <-> torch", *lines]))
    every = {name: torch.nn.Parameter(torch.rand(2, 2)) for name in ("last.weight", "first.weight", "weight")}

    def convert(own):
        optimizer = torch.optim.AdamW(own)
        sum((weight * number).sum() for number, weight in enumerate(every.values(), 1)).backward()
        optimizer.step()
        model = {name: every[name].detach() for name in sorted(every)}  # in another order than the optimizer's
        torch.save({"model": model, "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
        words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--with-optimizer", "--force"]
        return run(*words, "-o", tmp_path / "out.msgpack")

    code, _, err = convert([(around + name, weight) for name, weight in every.items()])
    assert code == 0 and f"what stands before them: {around}last.weight as last.weight" in err, err
    assert "assumed, not known" not in err
    with open_checkpoint(str(tmp_path / "out.msgpack")) as saved:
        for number, name in enumerate(every, 1):
            moment = np.frombuffer(bytes(saved.read(f"opt_state/0/mu/x.{name}")), "float32")
            assert np.allclose(moment, 0.1 * number), name
    for name in ("net.first.weight", "net.other"):
        code, _, err = convert([(name, every["first.weight"])])
        assert code == 1 and f"names parameters that the model has not: {name}" in err, err


def test_what_a_table_drops_may_be_no_parameter_of_torch(run, tmp_path):
    """As nanoGPT's masks, which lie among the numbered parameters: the count decides, and a note says so."""
    needs("torch")
    import torch

    net = torch.nn.Module()
    net.first, net.last = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    net.first.register_buffer("mask", torch.ones(2, 2))
    optimizer = torch.optim.AdamW(net.parameters())
    (net.first.weight + 2 * net.last.weight).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--with-optimizer", "-o", tmp_path / "out.msgpack"]
    for mask, status in (("first.mask -> drop", 0), ("first.mask: o i <-> mask: o i", 1)):
        lines = ["table 1: torch <-> linen", "first.weight: o i <-> a: i o", "last.weight: o i <-> b: i o", mask]
        (tmp_path / "net.table").write_text("\n".join(lines))
        code, _, err = run(*words)
        assert code == status, err
        assert ("what is dropped is no parameter: first.mask" if code == 0 else "has 2 parameters, its state") in err
    with open_checkpoint(str(tmp_path / "out.msgpack")) as saved:
        moments = [np.frombuffer(bytes(saved.read(f"opt_state/0/mu/{name}")), "float32") for name in ("a", "b")]
    assert np.allclose(moments, [[0.1] * 4, [0.2] * 4])


def test_a_pdopt_of_a_table_is_counted_as_it_is(run, tmp_path):
    """Moments and powers of betas are no parameters of the model, whose number the record has."""
    needs("torch"), needs("paddle")
    import paddle
    import torch

    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.named_parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
    paddle.save(paddle.nn.Linear(2, 2).state_dict(), str(tmp_path / "new.pdparams"))
    (tmp_path / "net.table").write_text("table 1: torch <-> paddle\nweight: o i <-> weight: i o\nbias: o <-> bias: o")
    words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--with-optimizer"]
    code, printed, err = run(*words, "--like", tmp_path / "new.pdparams", "-o", tmp_path / "net.pdopt")
    assert code == 0 and printed.endswith(": 8 arrays of its optimizer alone, of 6 parameters\n"), printed + err
    printed = run("inspect", tmp_path / "net.pdopt")[1]
    assert "\narrays:       8\n" in printed and "\nelements:     16\n" in printed, printed


def test_a_record_states_hyperparameters_for_a_table_too(run, tmp_path):
    needs("torch")
    import torch

    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.named_parameters(), weight_decay=0.125)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
    (tmp_path / "net.table").write_text("table 1: torch <-> nnx\nweight: o i <-> kernel: i o\nbias: o <-> bias: o")
    there, bare = tmp_path / "net.msgpack", tmp_path / "bare.msgpack"
    words = ["--table", tmp_path / "net.table", "--with-optimizer"]
    assert run(*words, tmp_path / "net.pt", "-o", there)[0] == 0
    bare.write_bytes(there.read_bytes())
    words += ["--reverse", bare, "-o", tmp_path / "out.msgpack"]
    code, _, err = run(*words)
    assert code == 2 and "--hyper kind=" in err, err
    code, _, err = run(*words, "--config", there)
    assert code == 0 and f"from --config {there}: eps=1e-8, weight_decay=0.125" in err and "learning_rate=?" in err, err
    code, _, err = run(*words, "--config", bare)
    assert code == 2 and "has no record of an optimizer's state" in err, err
    words.remove("--with-optimizer")
    code, _, err = run(*words, "--config", there)
    assert code == 2 and "--config is of the state of an optimizer: add --with-optimizer" in err, err


def test_how_torch_computes_steps_is_set_aside_with_a_note(run, tmp_path):
    needs("torch")
    import torch

    net = torch.nn.Linear(2, 2)
    (tmp_path / "net.table").write_text("table 1: torch <-> torch\nweight: o i <-> w: o i\nbias: o <-> b: o")
    torch.save({"w": net.weight, "b": net.bias}, tmp_path / "new.pt")
    for fused in (True, None):
        optimizer = torch.optim.AdamW(net.named_parameters(), fused=fused)
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
        words = ["--table", tmp_path / "net.table", tmp_path / "net.pt", "--with-optimizer", "--force"]
        code, _, err = run(*words, "-o", tmp_path / "out.pt", "--like", tmp_path / "new.pt")
        assert code == 0 and ("computed its steps: fused=True: set it in" in err) is (fused is True), err
        ends = (
            f"torch.optim.AdamW, from {tmp_path / 'net.pt'} to {tmp_path / 'out.pt'}"  # of one library: by their files
        )
        assert f"note: the optimizer's state after 1 step goes along: {ends}\n" in err, err


def test_one_error_asks_for_lengths_the_kind_and_the_order_of_parameters(run, tmp_path):
    needs("flax")
    needs("torch")
    import flax
    import jax.numpy as jnp
    import optax
    import torch
    from flax.training.train_state import TrainState

    (tmp_path / "my.table").write_text("table 1: linen <-> torch\nparams/q: (h d) <-> q: (d h)\n")
    state = TrainState.create(apply_fn=None, params={"q": jnp.arange(6.0)}, tx=optax.adamw(0.1))
    state = state.apply_gradients(grads={"q": jnp.ones(6)})
    (tmp_path / "x.msgpack").write_bytes(flax.serialization.to_bytes(state))
    torch.save({"q": torch.zeros(6)}, tmp_path / "new.pt")
    words = ["--table", tmp_path / "my.table", tmp_path / "x.msgpack", "--with-optimizer", "-o", tmp_path / "out.pt"]
    code, _, err = run(*words)
    assert code == 2 and "the names and shapes at hand leave open lengths of axes" in err, err
    (beside,) = (line for line in err.splitlines() if "beside that, for the optimizer: " in line)
    assert "--hyper kind=adam or kind=adamw" in beside and "and give --like new.pt" in beside
    code, _, err = run(*words, "--set", "h=2")
    assert code == 2 and "--hyper kind=adam or kind=adamw" in err and "beside that: torch numbers parameters" in err
    assert run(*words, "--set", "h=2", "--hyper", "kind=adamw", "--like", tmp_path / "new.pt")[0] == 0


def test_moments_of_sums_are_refused(run, tmp_path):
    """One bias against two: an optimizer of the two moves their sum farther."""
    needs("torch")
    import torch

    (tmp_path / "net.table").write_text("table 1: torch <-> other\nweight: o i <-> w: o i\nbias: o <- ih: o + hh: o\n")
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.named_parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "net.pt")
    code, _, err = run(
        "--table", tmp_path / "net.table", tmp_path / "net.pt", "--with-optimizer", "-o", tmp_path / "x.msgpack"
    )
    assert (
        code == 1 and "hh is a term of a sum that is one parameter in the source: as each term takes a step" in err
    ), err
    own = {"w": net.weight, "ih": torch.nn.Parameter(torch.ones(2)), "hh": torch.nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.AdamW([(name, torch.nn.Parameter(value.detach())) for name, value in own.items()])
    sum(value.sum() for value in optimizer.param_groups[0]["params"]).backward()
    optimizer.step()
    model = {name: value.detach() for name, value in own.items()}
    torch.save({"model": model, "optimizer": optimizer.state_dict()}, tmp_path / "own.pt")
    words = ["--table", tmp_path / "net.table", tmp_path / "own.pt", "--reverse", "--with-optimizer"]
    code, _, err = run(*words, "-o", tmp_path / "x.msgpack")
    assert code == 1 and "bias is the sum of parameters of the source: as each term takes a step of its own" in err, err
