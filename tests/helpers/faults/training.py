"""Faults of training, and of what a backend says of itself."""

from __future__ import annotations

from faults.mutation import numpy_fault, torch_fault

CORRECTION = "1.0 - beta1**state.step, 1.0 - beta2**state.step"
COPIED = "self._state = copy_state(state or pretraining_state(config.model, config.seed))"
EMA = "self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)"
CHECK_KEEP = "        check_keep(keep)\n"
CHECK_IMAGES = "check_images(np.shape(images), config.in_chans, config.image_size)"
ADAMW = "norm, finite = update(self._state, total, loss, config, learning_rate)"

STEP = [
    numpy_fault(
        "weight decay on biases", "train-adamw", ("pretraining", "if is_decayed(name, grad.shape) else 0.0", "")
    ),
    numpy_fault("no bias correction", "train-adamw", ("pretraining", CORRECTION, "1.0, 1.0")),
    numpy_fault("bias correction starts anew", "train-adamw", ("pretraining", CORRECTION, "1.0 - beta1, 1.0 - beta2")),
    numpy_fault(
        "Adam's eps under the root",
        "train-adamw",
        ("pretraining", "(np.sqrt(second / correction2) + ADAM_EPS)", "np.sqrt(second / correction2 + ADAM_EPS)"),
    ),
    numpy_fault(
        "decay in the gradient (L2)",
        "train-adamw",
        (
            "pretraining",
            "grads.items():\n        first",
            "grads.items():\n        grad = grad + config.weight_decay * state.student[name]\n        first",
        ),
    ),
    numpy_fault(
        "betas exchanged", "train-adamw", ("pretraining", "beta1, beta2 = config.betas", "beta2, beta1 = config.betas")
    ),
    numpy_fault(
        "EMA before AdamW", "train-adamw", ("pretraining", f"{ADAMW}\n        {EMA}", f"{EMA}\n        {ADAMW}")
    ),
    numpy_fault(
        "EMA a micro-batch", "train-accumulation", ("pretraining", EMA, f"for _ in range(parts):\n            {EMA}")
    ),
    numpy_fault(
        "EMA skips the norms",
        "train-fixed-points",
        (
            "pretraining",
            EMA,
            f"old = self._state.teacher\n        {EMA}\n"
            "        self._state.teacher |= {n: v for n, v in old.items() if 'norm' in n}",
        ),
    ),
    numpy_fault("sum of the micro-batches", "train-accumulation", ("pretraining", "+= grad / parts", "+= grad")),
    numpy_fault(
        "last micro-batch only",
        "train-accumulation",
        ("pretraining", "total[name] += grad / parts", "total[name] = grad"),
    ),
    numpy_fault(
        "norm after clipping",
        "train-adamw",
        ("pretraining", "return np.asarray(norm)", "return np.asarray(min(norm, config.grad_clip or norm))"),
    ),
    numpy_fault(
        "always scales to the clipping norm",
        "train-adamw",
        ("pretraining", "min(1.0, largest_norm / norm)", "largest_norm / norm / 2.0"),
    ),
    numpy_fault(
        "clips each parameter alone",
        "train-adamw",
        (
            "pretraining",
            "grad *= min(1.0, largest_norm / norm)",
            "grad *= min(1.0, largest_norm / max(1e-30, np.sqrt((grad**2).sum())))",
        ),
    ),
    numpy_fault(
        "drop path not honoured", "train-adamw", ("pretraining", "if drop_path is None else np.float64(drop_path)", "")
    ),
    numpy_fault(
        "drop path without its 1 / (1 - rate)",
        "train-adamw",
        ("pretraining", "else np.float64(drop_path)", "else np.float64(drop_path > 0)"),
    ),
    numpy_fault("pixels in 0..255", "train-pixels", ("pretraining", "(images / 255.0 - np", "(images - np")),
    numpy_fault(
        "pixels not divided by the deviation",
        "train-pixels",
        (
            "pretraining",
            "(images / 255.0 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))",
            "images / 255.0 - np.reshape(mean, (-1, 1, 1))",
        ),
    ),
    numpy_fault(
        "the loader's mean not heeded",
        "train-step",
        (
            "pretraining",
            "config.loader.normalization(config.model.in_chans)",
            "type(config.loader)().normalization(config.model.in_chans)",
        ),
    ),
    numpy_fault("betas not heeded", "train-adamw", ("pretraining", "= config.betas", "= 0.9, 0.95")),
    numpy_fault(
        "noise in half precision",
        "train-step",
        ("pretraining", "images[part], noise[part], scales", "images[part], np.float16(noise[part]), scales"),
    ),
    numpy_fault(
        "CLS in the mean features",
        "train-step",
        ("pretraining", "trace.latent[:, 1:].mean(axis=1)", "trace.latent.mean(axis=1)"),
    ),
]

NON_FINITE = [
    numpy_fault("a NaN gets in", "train-skips-nonfinite", ("pretraining", "    if finite:", "    if True:")),
    numpy_fault(
        "a NaN gets into fine-tuning", "finetune-skips-nonfinite", ("pretraining", "    if finite:", "    if True:")
    ),
    numpy_fault(
        "a skipped step is not counted",
        "train-skips-nonfinite",
        ("pretraining", "    state.step += 1\n    if finite:", "    state.step += int(finite)\n    if finite:"),
    ),
    numpy_fault(
        "a skipped step is kept quiet",
        "train-skips-nonfinite",
        ("pretraining", "np.asarray(norm), np.asarray(finite)", "np.asarray(norm), np.asarray(True)"),
    ),
    numpy_fault(
        "a good step is called bad",
        "train-step",
        ("pretraining", "np.asarray(norm), np.asarray(finite)", "np.asarray(norm), np.asarray(norm < 0.0)"),
    ),
    torch_fault(
        "a skipped step forgets AdamW's",
        "train-skips-nonfinite",
        "float64",
        ("trainer", "torch._foreach_add_(self._steps, skipped)", "pass"),
    ),
    torch_fault(
        "a NaN gets into the torch model",
        "train-skips-nonfinite",
        "float64",
        ("trainer", "(~finite).float()", "torch.zeros(())"),
    ),
]

STATE = [
    numpy_fault(
        "teacher starts from other numbers",
        "train-start",
        (
            "pretraining",
            COPIED,
            f"{COPIED}\n        self._state.teacher['norm.weight'] *= 0.999 if state is None else 1.0",
        ),
    ),
    numpy_fault(
        "starts from another seed",
        "train-start",
        ("pretraining", "config.model, config.seed))", "config.model, config.seed + 1))"),
    ),
    numpy_fault(
        "given state shared",
        "train-snapshot",
        ("pretraining", COPIED, "self._state = state or pretraining_state(config.model, config.seed)"),
    ),
    numpy_fault(
        "taken state shared", "train-snapshot", ("pretraining", "return copy_state(self._state)", "return self._state")
    ),
    numpy_fault(
        "moments forgotten",
        "train-state",
        (
            "pretraining",
            COPIED,
            COPIED + "\n        self._state.exp_avg = backward.zero_gradients(self._state.student)",
        ),
    ),
    numpy_fault(
        "step forgotten", "train-state", ("pretraining", "for group in groups), state.step)", "for group in groups))")
    ),
    torch_fault(
        "parameters in float64 in half precision",
        "train-half",
        "bfloat16",
        (
            "trainer",
            'torch.float64 if config.precision == "float64" else torch.float32',
            'torch.float32 if config.precision == "float32" else torch.float64',
        ),
    ),
    torch_fault(
        "EMA's momentum in float32",
        "train-step",
        "float64",
        (
            "trainer",
            "ops.ema_update_(*self._ema_pairs, momentum)",
            "ops.ema_update_(*self._ema_pairs, float(np.float32(momentum)))",
        ),
    ),
]

CONTRACT = [
    numpy_fault(
        "another default",
        "contract-signatures",
        ("backend", "num_prefix_tokens: int = 0, center", "num_prefix_tokens: int = 1, center"),
    ),
    numpy_fault(
        "another name of an argument",
        "contract-signatures",
        (
            "backend",
            "def patchify(self, images: Array, patch_size: int)",
            "def patchify(self, images: Array, size: int, patch_size: int = 1)",
        ),
    ),
    numpy_fault(
        "an unknown dtype", "contract-capabilities", ("__init__", 'dtypes=("float64",)', 'dtypes=("float64", "double")')
    ),
    numpy_fault("trains although it says not", "contract-no-training", ("__init__", "training=True", "training=False")),
    numpy_fault("any share to keep", "contract-refusals", ("backend", CHECK_KEEP, "")),
    numpy_fault(
        "NaN to keep",
        "contract-refusals",
        ("backend", CHECK_KEEP, CHECK_KEEP.replace("keep)", "np.nan_to_num(keep, nan=1.0))")),
    ),
    numpy_fault(
        "images of any size to encode",
        "contract-refusals",
        ("backend", f"{CHECK_KEEP}        {CHECK_IMAGES}", CHECK_KEEP),
    ),
    numpy_fault(
        "images of any size to pre-train on",
        "contract-refusals",
        ("backend", f"{CHECK_IMAGES}\n        scales", "scales"),
    ),
    numpy_fault(
        "images of any size in a step",
        "contract-refusals",
        ("pretraining", "check_images(np.shape(images), config.model.in_chans, config.model.image_size)", "pass"),
    ),
    numpy_fault(
        "no images to encode",
        "contract-refusals",
        ("backend", f"{CHECK_KEEP}        ", f"{CHECK_KEEP}        len(images) and "),
    ),
    numpy_fault(
        "inference depends on the decoder",
        "model-decoder-ignored",
        (
            "backend",
            "model.encode(config, model.Widened(parameters)",
            "model.encode(config, {n: v * len(parameters) for n, v in _all_floats(parameters).items()}",
        ),
    ),
    numpy_fault(
        "dropped tokens leave their mean",
        "model-dropped",
        (
            "ops",
            "np.concatenate([prefix, gather_tokens(patches, ids)], axis=1)",
            "np.concatenate([prefix + patches.mean(axis=1, keepdims=True), gather_tokens(patches, ids)], axis=1)",
        ),
    ),
]

FAULTS = (*STEP, *NON_FINITE, *STATE, *CONTRACT)
