"""Write ranges of an axis: in blocks, which fit other sizes too, or by positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def window(start: int, stop: int, length: int) -> str:
    """Write a range of positions; "" for all of them."""
    return "" if stop - start == length else f"[{start or ''}:{stop if stop < length else ''}]"


def block(axis: str, start: int, size: int, length: int) -> str:
    """Write one of several blocks of this size, counted from both ends: (1[1:-1] c) is the second of three."""
    return f"(1{blocks(start // size, (length - start) // size - 1)} {axis})"


def blocks(before: int, after: int) -> str:
    """Write a range of blocks by how many there are before and after it; "" for all of them."""
    return f"[{before or ''}:{-after if after else ''}]" if before or after else ""


def even(ranges: Iterable[tuple[int, int]], length: int) -> int:
    """Return the size of the blocks that ranges of an axis are, if all of them are one block; else 0."""
    every = list(ranges)
    sizes = {stop - start for start, stop in every}
    size = sizes.pop() if len(sizes) == 1 else 0
    fits = 0 < size < length and length % size == 0 and all(start % size == 0 for start, _ in every)
    return size if fits else 0


def left_over(
    path: str, texts: Sequence[str], written: Sequence[str], windows: Sequence[tuple[int, int] | None],
    shape: Sequence[int],
) -> Iterator[tuple[tuple[str, str], ...]]:  # fmt: skip
    """Yield the array at the positions before and after a window; block by block where the window is one."""
    for axis, inside in enumerate(windows):
        if inside is None:
            continue
        size = even([inside], shape[axis]) if written[axis].startswith("(1[") else 0
        ranges = [(0, inside[0]), (inside[1], shape[axis])]
        if size:
            ranges = [(at, at + size) for at in range(0, shape[axis], size) if at != inside[0]]
        others = [*written[:axis], *texts[axis + 1 :]]
        own = next(letter for letter in "xzuv" if not any(letter in text for text in others))  # x may be a width
        for start, stop in ranges:
            if start < stop:
                text = block(own, start, size, shape[axis]) if size else f"{own}{window(start, stop, shape[axis])}"
                yield ((path, " ".join([*written[:axis], text, *texts[axis + 1 :]])),)
