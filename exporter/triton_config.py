"""The config.pbtxt of a release: the same text serves on a CPU and on a GPU, with our backend and with NVIDIA's.

Knows Triton's model configuration. Must not know torch, ONNX or files.
"""

from exporter.release import Signature, Tensor

BACKEND = "onnxruntime"


def config_text(model: str, number: int, signature: Signature, max_batch_size: int, run: str) -> str:
    """The text of config.pbtxt for `model/number`.

    No instance kind is given: Triton then takes a GPU where there is one, while KIND_GPU fails to load without one.
    No preferred batch size and no queue delay: what waits while an instance is busy becomes the next batch, and a
    lone request never waits. Intra-op threads are held to one, as instances already use the cores.
    """
    return "\n".join(
        [
            f'name: "{model}"',
            f'backend: "{BACKEND}"',
            f"max_batch_size: {max_batch_size}",
            f"version_policy {{ specific {{ versions: {number} }} }}",
            *_tensors("input", signature.inputs),
            *_tensors("output", signature.outputs),
            "instance_group [ { count: 1 } ]",
            "dynamic_batching { max_queue_delay_microseconds: 0 }",
            *_warmups(signature, sorted({1, max_batch_size})),
            _parameter("release", f"{model}/{number}"),
            _parameter("run", run),
            _parameter("intra_op_thread_count", "1"),
            "",
        ]
    )


def _tensors(what: str, tensors: tuple[Tensor, ...]) -> list[str]:
    items = [f'  {{ name: "{tensor.name}" {_type_and_dims(tensor)} }}' for tensor in tensors]
    return [f"{what} [", ",\n".join(items), "]"]


def _warmups(signature: Signature, sizes: list[int]) -> list[str]:
    """Zero rows at the smallest and the largest batch, so that no client pays for first-use work.

    Inputs with open dims (-1) are not warmed up: Triton wants every dim here, and none would be the right one.
    """
    if any(-1 in tensor.dims for tensor in signature.inputs):
        return []
    inputs = " ".join(
        f'inputs {{ key: "{tensor.name}" value {{ {_type_and_dims(tensor)} zero_data: true }} }}'
        for tensor in signature.inputs
    )
    items = [f'  {{ name: "batch of {size}" batch_size: {size} {inputs} }}' for size in sizes]
    return ["model_warmup [", ",\n".join(items), "]"]


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def _type_and_dims(tensor: Tensor) -> str:
    return f"data_type: TYPE_{tensor.dtype} dims: [ {', '.join(map(str, tensor.dims))} ]"
