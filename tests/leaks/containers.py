"""Tensors as indices and keys, in lists and text, and lists made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import hybridjit as hj

from .entry import floats, leak

FOUR, SIX = floats(4, 3), floats(6, 3)
UP, DOWN = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0])
ONE, TWO, THREE = torch.tensor(1), torch.tensor(2), torch.tensor(3)


@leak((UP, ONE), (UP, TWO))
def index_of_list(x: Tensor, n: Tensor) -> Tensor:
    return [x, x + 1, x * 2][n]


@index_of_list.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return torch.stack([x, x + 1, x * 2])[n]


@leak((UP, ONE), (UP, THREE))
def slice_of_list(x: Tensor, n: Tensor) -> Tensor:
    return torch.stack([x, x + 1, x * 2][:n]).sum(0)


@slice_of_list.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return torch.stack([x, x + 1, x * 2])[:n].sum(0)


GRID, FIRST, OTHER = floats(5, 5), torch.tensor([0, 2, 3]), torch.tensor([4, 1, 1])


@leak((GRID, FIRST), (GRID, OTHER), does="right")
def written_at_numbers(x: Tensor, n: Tensor) -> Tensor:
    rows, columns = zip(*torch.stack([n, 4 - n], dim=1), strict=True)
    x = x.clone()
    x[rows, columns] = 0.0
    return x


@written_at_numbers.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    x = x.clone()
    x[n, 4 - n] = 0.0
    return x


@leak((GRID, FIRST), (GRID, OTHER), does="right")
def taken_at_numbers(x: Tensor, n: Tensor) -> Tensor:
    return x[:, [n[0], n[1]]] + x[[n[2]] * 40][:5, :2]


@taken_at_numbers.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return x[:, n[:2]] + x[n[2:].repeat(40)][:5, :2]


@leak((UP, ONE), (UP, TWO))
def key_of_number(x: Tensor, n: Tensor) -> Tensor:
    return {1: x, 2: x * 10}[n.item()]  # type: ignore[index]


@key_of_number.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return torch.where(n == 1, x, x * 10)


@leak(FOUR, SIX, does="guard")
def key_of_size(x: Tensor) -> Tensor:
    return x * {6: 2.0}.get(x.shape[0], 1.0)  # a traced size is found in no dictionary


@key_of_size.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.as_tensor(x.shape[0] == 6), x * 2, x)


@leak(FOUR, SIX, does="guard")
def size_in_set(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] in {6, 8} else x


@size_in_set.fixed
def _(x: Tensor) -> Tensor:
    n = torch.as_tensor(x.shape[0])
    return torch.where((n == 6) | (n == 8), x * 2, x)


@leak(FOUR, SIX, auto="right")
def size_in_tuple(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] in (6, 8) else x


@size_in_tuple.fixed
def _(x: Tensor) -> Tensor:
    n = torch.as_tensor(x.shape[0])
    return torch.where((n == 6) | (n == 8), x * 2, x)


@leak(FOUR, SIX)
def key_of_int_of_size(x: Tensor) -> Tensor:
    return x * {4: 0.5, 6: 2.0}[int(x.shape[0])]


@key_of_int_of_size.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.as_tensor(x.shape[0] == 4), x * 0.5, x * 2)


@leak(UP, DOWN)
def value_in_tensor(x: Tensor) -> Tensor:
    return x * 2 if 1.0 in x else x


@value_in_tensor.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((x == 1.0).any(), x * 2, x)


@leak(UP, DOWN, auto="right")
def tensor_in_list(x: Tensor) -> Tensor:
    return x * 2 if x[0] in [1.0, 2.0] else x


@tensor_in_list.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((x[0] == 1.0) | (x[0] == 2.0), x * 2, x)


@leak((UP, ONE), (UP, TWO))
def text_of_value(x: Tensor, n: Tensor) -> Tensor:
    return {"1": x, "2": x * 10}[f"{n}"]


@text_of_value.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return torch.where(n == 1, x, x * 10)


@leak((UP, ONE), (UP, TWO))
def text_of_number(x: Tensor, n: Tensor) -> Tensor:
    return x * len("%d" % n * 3) * float("%d" % n)  # noqa: UP031 (a way into text of its own)


@text_of_number.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return x * 3 * n


@leak((UP, ONE), (UP, TWO))
def representation(x: Tensor, n: Tensor) -> Tensor:
    return {"tensor(1)": x}.get(repr(n), x * 10)


@representation.fixed
def _(x: Tensor, n: Tensor) -> Tensor:
    return torch.where(n == 1, x, x * 10)


@leak(FOUR, SIX)
def text_of_shape(x: Tensor) -> Tensor:
    return x * 2 if str(tuple(x.shape)) == "(6, 3)" else x


@text_of_shape.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.as_tensor(x.shape[0] == 6), x * 2, x)


@leak(FOUR, SIX)
def text_of_size(x: Tensor) -> Tensor:
    return x * 2 if f"{x.shape[0]}" == "6" else x


@text_of_size.fixed
def _(x: Tensor) -> Tensor:
    return torch.where(torch.as_tensor(x.shape[0] == 6), x * 2, x)


@leak(FOUR, SIX)
def name_of_layer(x: Tensor) -> Tensor:
    return x * len("ab" * int(x.shape[0]))


@name_of_layer.fixed
def _(x: Tensor) -> Tensor:
    return x * (2 * x.shape[0])


@leak(FOUR, SIX)
def iterated(x: Tensor) -> Tensor:
    total = x.new_zeros(3)
    for row in x:
        total = total * 0.5 + row
    return total


@iterated.fixed
def _(x: Tensor) -> Tensor:
    return hj.scan(lambda state, row: (state * 0.5 + row, state), x.new_zeros(3), x)[0]


@leak(FOUR, SIX)
def enumerated(x: Tensor) -> Tensor:
    return torch.stack([row * index for index, row in enumerate(x)])


@enumerated.fixed
def _(x: Tensor) -> Tensor:
    return x * torch.arange(x.shape[0])[:, None]


@leak(FOUR, SIX)
def unpacked(x: Tensor) -> Tensor:
    first, *rest = x
    return first - torch.stack(rest).sum(0)


@unpacked.fixed
def _(x: Tensor) -> Tensor:
    return x[0] - x[1:].sum(0)


@leak(FOUR, SIX)
def unbound(x: Tensor) -> Tensor:
    return torch.stack([row * 2 for row in x.unbind(0)])


@unbound.fixed
def _(x: Tensor) -> Tensor:
    return x * 2


@leak(FOUR, SIX)
def split_by_two(x: Tensor) -> Tensor:
    return torch.stack([part.sum() for part in x.split(2)])


@split_by_two.fixed
def _(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] // 2, -1).sum(1)


@leak(FOUR, floats(5, 3))
def chunks(x: Tensor) -> Tensor:
    parts = x.chunk(4)  # of five rows there are three
    return parts[0].sum(0) / len(parts)


@chunks.fixed
def _(x: Tensor) -> Tensor:
    size = (x.shape[0] + 3) // 4
    return x[:size].sum(0) / ((x.shape[0] + size - 1) // size)


@leak(UP, DOWN, torch.tensor([5.0, 1.0, -1.0]))
def values_as_list(x: Tensor) -> Tensor:
    return x * sum(x.tolist())


@values_as_list.fixed
def _(x: Tensor) -> Tensor:
    return x * x.sum()


@leak(UP, torch.tensor([3.0, -2.0, 1.0]), auto="right")
def chosen_rows(x: Tensor) -> Tensor:
    keep = [index for index in range(3) if x[index] > 0]
    return x[keep]


@chosen_rows.fixed
def _(x: Tensor) -> Tensor:
    return x[x > 0]


@leak(UP, DOWN, UP * 2, auto="right")
def found_nothing(x: Tensor) -> Tensor:
    found = (x > 1).nonzero()
    if len(found) == 0:
        return x.new_ones(1)
    return x[found[:, 0]].sum()[None]


@found_nothing.fixed
def _(x: Tensor) -> Tensor:
    return torch.where((x > 1).any(), torch.where(x > 1, x, 0).sum(), 1.0)[None]


@leak(([FOUR, FOUR + 1],), ([FOUR, SIX[:4], FOUR],))
def images_in_list(images: list[Tensor]) -> Tensor:
    return torch.stack(images).sum(0) / len(images)


@images_in_list.fixed
def _(images: list[Tensor]) -> Tensor:
    return torch.stack(images).sum(0) / len(images)


@leak(({"a": UP, "b": DOWN},), ({"a": UP, "b": DOWN, "c": UP},))
def further_key(inputs: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(inputs.values())).sum(0)


@further_key.fixed
def _(inputs: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(inputs.values())).sum(0)


class LayerByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        named: Tensor = getattr(self, f"layer{n.item()}")(x)
        return named


class LayerByCond(LayerByName):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return hj.cond(n == 1, lambda: self.layer1(x), lambda: self.layer2(x))


leak((UP, ONE), (UP, TWO))(LayerByName).fixed(LayerByCond)
