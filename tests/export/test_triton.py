"""`Exported.save_triton`: the configuration is Triton's, and a server that goes by it gets the model's results."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import hybridjit as hj

descriptor_pb2, descriptor_pool, message_factory, text_format = (
    pytest.importorskip(f"google.protobuf.{name}")  # comes with the extra onnx
    for name in ("descriptor_pb2", "descriptor_pool", "message_factory", "text_format")
)

# Of Triton's model_config.proto, what a configuration of ours has: names, numbers, kinds.
TYPES = ["INVALID", "BOOL", *(f"UINT{n}" for n in (8, 16, 32, 64)), *(f"INT{n}" for n in (8, 16, 32, 64))]
TYPES += ["FP16", "FP32", "FP64", "STRING", "BF16"]
TENSOR = [("name", 1, "STRING", 1), ("data_type", 2, ".inference.DataType", 1)]
MESSAGES: dict[str, list[tuple[str, int, str, int]]] = {
    "ModelInput": [*TENSOR, ("dims", 4, "INT64", 3)],
    "ModelOutput": [*TENSOR, ("dims", 3, "INT64", 3)],
    "ModelInstanceGroup": [("count", 2, "INT32", 1)],
    "ModelConfig": [
        ("name", 1, "STRING", 1),
        ("platform", 2, "STRING", 1),
        ("max_batch_size", 4, "INT32", 1),
        ("input", 5, ".inference.ModelInput", 3),
        ("output", 6, ".inference.ModelOutput", 3),
        ("instance_group", 7, ".inference.ModelInstanceGroup", 3),
    ],
}


def parsed(folder: Path) -> Any:
    """The configuration as a server reads it; an unknown field or type is an error."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for number, name in enumerate(TYPES):
        kinds.value.add(name=f"TYPE_{name}", number=number)
    for message, fields in MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            field = made.field.add(name=name, number=number, label=label)
            if kind.startswith("."):
                field.type_name = kind
                field.type = field.TYPE_ENUM if kind.endswith("DataType") else field.TYPE_MESSAGE
            else:
                field.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    return text_format.Parse((folder / "config.pbtxt").read_text(), config)


def serve_script(folder: Path, request: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the libtorch backend does: inputs by argument, outputs by the number after the two underscores."""
    config, module = parsed(folder), torch.jit.load(folder / "1" / "model.pt")
    arguments = [each.name for each in module.forward.schema.arguments][1:]
    assert sorted(each.name for each in config.input) == sorted(arguments)
    for each in config.input:
        fits(each, request[each.name])
    result = module(*(request[name] for name in arguments))
    results = [result] if isinstance(result, Tensor) else list(result)
    made = {each.name: results[int(each.name[each.name.index("__") + 2 :])] for each in config.output}
    for each in config.output:
        fits(each, made[each.name])
    return made


def fits(port: Any, tensor: Tensor) -> None:
    """Refuses as the server does what the configuration does not have."""
    spelled = {torch.float32: "FP32", torch.int64: "INT64", torch.uint8: "UINT8", torch.float64: "FP64"}
    assert TYPES[port.data_type] == spelled[tensor.dtype]
    assert len(port.dims) == tensor.dim() > 0
    assert all(wanted in (-1, size) for wanted, size in zip(port.dims, tensor.shape, strict=True))


class Found(NamedTuple):
    boxes: Tensor
    labels: Tensor


class Detector(nn.Module):
    @hj.branch_if_tracing
    def forward(self, image: Tensor, targets: dict[str, Tensor]) -> Found:
        boxes = targets["boxes"][targets["boxes"].sum(1) > 0]
        if image.float().mean() > 9:
            boxes = boxes * 2
        return Found(boxes, torch.arange(boxes.shape[0]))


def call(size: int, count: int, value: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.full((3, size, 8), value, dtype=torch.uint8), {"boxes": torch.ones(count, 4)}


def test_a_server_gets_the_models_results(tmp_path: Path) -> None:
    """By the configuration alone, on a size and a side that were not traced, in any order of the inputs."""
    folder = tmp_path / "models" / "detector"
    exported = hj.export(Detector().eval(), call(8, 2), check_inputs=[call(9, 3), call(8, 0, 50)])
    exported.save_triton(folder)
    config = parsed(folder)
    assert (config.name, config.platform, config.max_batch_size) == ("detector", "pytorch_libtorch", 0)
    assert [(each.name, list(each.dims)) for each in config.input] == [
        ("image", [3, -1, 8]),
        ("targets_boxes", [-1, 4]),
    ]
    assert [(each.name, list(each.dims)) for each in config.output] == [("boxes__0", [-1, 4]), ("labels__1", [-1])]
    image, targets = call(20, 5, 60)
    made = serve_script(folder, {"targets_boxes": targets["boxes"], "image": image})
    expected = Detector()(image, targets)
    assert torch.equal(made["boxes__0"], expected.boxes) and torch.equal(made["labels__1"], expected.labels)


def test_sizes_that_were_declared_vary(tmp_path: Path) -> None:
    """What dynamic_shapes declares is -1, what it does not is the traced size."""
    model = nn.Linear(4, 2).eval()
    batch = Dim("batch", min=1)
    hj.export(model, torch.ones(3, 4), dynamic_shapes={"input": {0: batch}}).save_triton(tmp_path / "linear")
    config = parsed(tmp_path / "linear")
    assert [list(each.dims) for each in (*config.input, *config.output)] == [[-1, 4], [-1, 2]]
    assert config.output[0].name == "result__0"


def test_a_loaded_file_can_be_served(tmp_path: Path) -> None:
    """What a configuration needs travels in the file."""
    exported = hj.export(Detector().eval(), call(8, 2))
    exported.save(tmp_path / "detector.pt")
    exported.save_triton(tmp_path / "a" / "detector")
    hj.load(tmp_path / "detector.pt").save_triton(tmp_path / "b" / "detector")
    texts = [(tmp_path / folder / "detector" / "config.pbtxt").read_text() for folder in "ab"]
    assert texts[0] == texts[1]


def test_onnx_is_served_by_the_names_of_its_graph(tmp_path: Path) -> None:
    """The configuration has what onnxruntime itself tells of the graph."""
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = tmp_path / "scaled"

    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
            return {"y": x * scale, "n": torch.ones(1) * x.shape[0]}

    hj.export(Scaled().eval(), (torch.ones(3, 4), torch.ones(1)), format="onnx").save_triton(folder)
    config, session = parsed(folder), onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    assert config.platform == "onnxruntime_onnx"
    for ports, values in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        theirs = [(each.name, [size if isinstance(size, int) else -1 for size in each.shape]) for each in values]
        assert [(each.name, list(each.dims)) for each in ports] == theirs
    assert list(config.input[0].dims) == [-1, -1]


def test_additions_stay_and_other_tensors_are_refused(tmp_path: Path) -> None:
    """A second version keeps what was added to the configuration; a model of other tensors is not put under it."""
    folder = tmp_path / "linear"
    first = hj.export(nn.Linear(4, 2).eval(), torch.ones(3, 4), check_inputs=[torch.ones(2, 4)])
    first.save_triton(folder)
    with (folder / "config.pbtxt").open("a") as out:
        out.write("instance_group [ { count: 2 } ]\n")
    first.save_triton(folder, version=2)
    assert parsed(folder).instance_group[0].count == 2
    other = hj.export(nn.Linear(5, 2).eval(), torch.ones(3, 5), check_inputs=[torch.ones(2, 5)])
    with pytest.raises(hj.ArchiveError) as error:
        other.save_triton(folder, version=3)
    assert "expected dims: [ -1, 5 ], got dims: [ -1, 4 ]" in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "config.pbtxt"]


class Flagged(nn.Module):
    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        return x * 2 if twice else x

    def doubled(self, x: Tensor) -> Tensor:
        return x * 2


REFUSED = {
    "a scalar": (lambda x: x.sum(), torch.ones(2), {}, "result: is a scalar"),
    "a scalar in a dict": (lambda x: {"n": x.sum()}, torch.ones(2), {}, "result['n']: is a scalar"),
    "bfloat16": (lambda x: x + 1, torch.ones(2, dtype=torch.bfloat16), {}, "x: has no type for bfloat16"),
    "two ranks": (
        lambda x: hj.cond(x.sum() > 0, lambda: x[None], lambda: x),
        torch.ones(2),
        {"check_inputs": [-torch.ones(2)]},
        "result: its dtype or number of dimensions differs from call to call",
    ),
}


@pytest.mark.parametrize("forward, inputs, options, says", REFUSED.values(), ids=REFUSED)
def test_what_triton_has_not_is_refused(tmp_path: Path, forward: Any, inputs: Any, options: Any, says: str) -> None:
    """Each by name, and nothing is written."""
    model = type("Model", (nn.Module,), {"forward": lambda self, x: forward(x)})().eval()
    with pytest.raises(hj.UnsupportedError) as error:
        hj.export(model, inputs, **options).save_triton(tmp_path / "model")
    assert str(error.value).splitlines()[:2] == ["Triton can't serve these tensors", f"  - {says}"]
    assert not (tmp_path / "model").exists()


def test_flags_and_other_formats_are_refused(tmp_path: Path) -> None:
    """A server passes tensors alone, to TorchScript and ONNX."""
    flagged = hj.export(Flagged().eval(), torch.ones(2), flags={"twice": (True, False)})
    with pytest.raises(hj.UnsupportedError, match=r"forward takes flags\n.*twice\n.*Inputs\(\.\.\., twice="):
        flagged.save_triton(tmp_path / "model")
    one = hj.export(Flagged().eval(), hj.Inputs(torch.ones(2), twice=True))
    one.save_triton(tmp_path / "twice")
    assert serve_script(tmp_path / "twice", {"x": torch.ones(2)})["result__0"].tolist() == [2, 2]
    pytest.importorskip("onnxruntime")
    several = hj.export(Flagged().eval(), torch.ones(2), format="onnx", methods={"doubled": torch.ones(2)})
    with pytest.raises(hj.UnsupportedError, match="result: its dtype or number of dimensions differs"):
        several.save_triton(tmp_path / "model")
    with pytest.raises(hj.UnsupportedError, match="serves no file of format 'pt2'"):
        hj.export(Flagged().eval(), torch.ones(2), format="pt2").save_triton(tmp_path / "model")


@pytest.mark.parametrize("version", [0, -1, True, "1"])
def test_versions_count_from_one(tmp_path: Path, version: Any) -> None:
    """Anything else is an InputError."""
    with pytest.raises(hj.InputError, match="save_triton takes a version, counted from 1"):
        hj.export(nn.Linear(4, 2).eval(), torch.ones(3, 4)).save_triton(tmp_path / "linear", version=version)
