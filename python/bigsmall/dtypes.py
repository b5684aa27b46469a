"""The element types of safetensors that no array library counts as the header does."""

F6 = frozenset({"F6_E2M3", "F6_E3M2"})


def array_shape(dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the array that holds a tensor of `shape`, which counts elements.

    It is `shape`, except where elements share bytes: F4 puts two in a byte, so the last dimension is halved (and a tensor whose
    last dimension is odd is a flat row of bytes); F6 tensors are a flat row of bytes.
    """
    n_elements = 1
    for size in shape:
        n_elements *= size
    if dtype == "F4":
        return (*shape[:-1], shape[-1] // 2) if shape and shape[-1] % 2 == 0 else (n_elements // 2,)
    if dtype in F6:
        return (n_elements * 6 // 8,)
    return shape
