import math

import pytest
import torch
from reference_spin import swapped_loss, targets
from small_models import tiny_encoder
from spintok_kernels import swapped_prediction_loss

from spintok.masks import length_mask
from spintok.train.batching.examples import Batch
from spintok.train.batching.plan import Position
from spintok.train.distributed import Distributed
from spintok.train.recipe_sections import CodebookPlan, SpinLossConfig
from spintok.train.stages.code_labels import CodeLabels
from spintok.train.stages.spin import SpinModel
from spintok.train.trainable import TrainableEncoder

CPU = Distributed(torch.device("cpu"))
PLANS = (CodebookPlan("primary", 6, width=5), CodebookPlan("auxiliary", 11, width=4, weight=0.5))


def model(train_layers: int = 2, plans=PLANS, **options) -> SpinModel:
    torch.manual_seed(3)
    encoder = TrainableEncoder(tiny_encoder(), train_layers=train_layers, train_front_end=False)
    made = SpinModel(encoder, plans, SpinLossConfig(), CPU, **options).train()
    made.normalize_codewords()
    return made


def batch(lengths=(6000, 4000), samples=6000, seed=0, **more) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    first, second = (0.1 * torch.randn(len(lengths), samples, generator=generator) for _ in range(2))
    return Batch(Position(), 1.0, first, torch.tensor(lengths), second=second, **more)


def gradients(made: SpinModel, step: Batch) -> dict[str, torch.Tensor]:
    made.zero_grad()
    made(step).loss.backward()
    return {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}


def valid_frames(features: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The frames of features (B, T, D) that are not padding, in utterance order: (N, D)."""
    return features[length_mask(counts, features.shape[1])]


def test_embeddings_and_codewords_have_unit_length() -> None:
    made = model()
    with torch.no_grad():
        made.primary.codewords.mul_(3.0)
    made.normalize_codewords()
    features, counts = made.encoder(batch().inputs, batch().lengths)
    for book in made.codebooks.values():
        torch.testing.assert_close(book.codewords.norm(dim=1), torch.ones(book.config.size))
        z = book.embed(valid_frames(features, counts))
        torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))


def test_loss_and_gradients_equal_the_oracle() -> None:
    """In float64, of both codebooks together, down to the first layer that trains."""
    made = model().double()
    step = batch()
    step = Batch(step.position, 1.0, step.inputs.double(), step.lengths, second=step.second.double())
    found = gradients(made, step)
    loss, figures = made(step)

    views = [valid_frames(*made.encoder(view, step.lengths)) for view in (step.inputs, step.second)]
    made.zero_grad()
    expected = sum(
        plan.weight * swapped_loss((views[0], views[1]), book.projection.weight, book.projection.bias, book.codewords)
        for plan, book in zip(PLANS, made.codebooks.values(), strict=True)
    )
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    trained = {name: p.grad for name, p in made.named_parameters() if p.requires_grad}
    assert found.keys() == trained.keys()
    assert any(name.startswith("encoder.encoder.layers.1.") for name in found)
    for name, gradient in trained.items():
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-12, name
    parts = figures["loss_primary"] + 0.5 * figures["loss_auxiliary"]
    torch.testing.assert_close(parts, loss.detach())


def test_targets_of_permuted_frames_are_permuted_targets() -> None:
    """Of the oracle, so that what the model is compared with has the property."""
    scores = torch.rand(20, 5, dtype=torch.float64)
    order = torch.randperm(20)
    torch.testing.assert_close(targets(scores, 0.02, 3)[order], targets(scores[order], 0.02, 3))


def test_the_order_of_utterances_does_not_matter() -> None:
    made = model()
    step = batch()
    other = Batch(step.position, 1.0, step.inputs.flip(0), step.lengths.flip(0), second=step.second.flip(0))
    torch.testing.assert_close(made(step).loss, made(other).loss)


def test_targets_carry_no_gradient() -> None:
    """The gradient is the oracle's whose targets are constant, and far from that of one whose targets are not."""
    made = model(train_layers=0, plans=PLANS[:1])
    step = batch()
    book = made.primary
    views = [valid_frames(*made.encoder(view, step.lengths)) for view in (step.inputs, step.second)]
    found = gradients(made, step)[f"codebooks.{PLANS[0].name}.projection.weight"]
    for through, apart in ((False, False), (True, True)):
        made.zero_grad()
        loss = swapped_loss(
            (views[0], views[1]),
            book.projection.weight,
            book.projection.bias,
            book.codewords,
            through_targets=through,
        )
        loss.backward()
        distance = (book.projection.weight.grad - found).norm() / found.norm()
        assert (distance > 0.1) == apart


def test_swapping_the_views_leaves_the_loss() -> None:
    made = model()
    step = batch()
    swapped = Batch(step.position, 1.0, step.second, step.lengths, second=step.inputs)
    torch.testing.assert_close(made(step).loss, made(swapped).loss)


def test_padding_never_enters() -> None:
    """Neither the values nor the amount of padding change the loss or a gradient."""
    made = model()
    step = batch()
    loud = batch(samples=9000)
    for view, other in ((loud.inputs, step.inputs), (loud.second, step.second)):
        view.fill_(100.0)
        for row, length in enumerate(step.lengths.tolist()):
            view[row, :length] = other[row, :length]
    torch.testing.assert_close(made(step).loss, made(loud).loss, rtol=1e-5, atol=1e-6)
    one, two = gradients(made, step), gradients(made, loud)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5, msg=name)


def test_only_frames_that_both_views_have_enter() -> None:
    """The second view holds a piece of the first one, later and between other sounds: the loss is that of the piece."""
    made = model(plans=PLANS[:1])
    places = torch.tensor([[2, 5, 9], [0, 1, 12]])
    step = batch(second_lengths=torch.tensor([5500, 6000]), shared=places)
    loss, _ = made(step)
    first = made.encoder(step.inputs, step.lengths)[0]
    second = made.encoder(step.second, step.second_lengths)[0]
    one = torch.cat([first[0, 2:11], first[1, 0:12]])
    two = torch.cat([second[0, 5:14], second[1, 1:13]])
    book = made.primary
    expected = swapped_loss((one, two), book.projection.weight, book.projection.bias, book.codewords)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    # If the second view is the first one as a whole, the same frames are shared as without ``shared``.
    whole = batch(second_lengths=torch.tensor([6000, 4000]), shared=torch.tensor([[0, 0, 18], [0, 0, 12]]))
    torch.testing.assert_close(made(whole).loss, made(batch()).loss, rtol=1e-5, atol=0)


def test_few_frames_of_pauses_share_the_codewords() -> None:
    made = SpinModel(TrainableEncoder(tiny_encoder()), PLANS[:1], SpinLossConfig(pauses=0.0), CPU)
    made.normalize_codewords()
    pauses = torch.arange(18) % 2 == torch.zeros(2, 1)
    pauses[1, 12:] = False
    step = batch(pauses=pauses)
    views = [valid_frames(*made.encoder(view, step.lengths)) for view in (step.inputs, step.second)]
    z1, z2 = (made.primary.embed(view) for view in views)
    counted = ~torch.cat([pauses[0], pauses[1, :12]])
    expected = swapped_prediction_loss(z1, z2, made.primary.normalized_codewords(), counted=counted).loss
    torch.testing.assert_close(made(step).loss, expected)
    assert not torch.isclose(made(step).loss, made(batch()).loss)
    # Nothing but pauses: all frames count.
    torch.testing.assert_close(made(batch(pauses=torch.ones(2, 18, dtype=torch.bool))).loss, made(batch()).loss)


def test_frames_without_a_label_have_no_label_loss() -> None:
    made = SpinModel(TrainableEncoder(tiny_encoder()), PLANS[:1], SpinLossConfig(), CPU, labels=9, label_weight=5.0)
    made.normalize_codewords()
    step = labelled_batch()
    frames, flat = labelled_frames(made, step)
    step.labels[0, 3:9] = -1
    known = torch.ones(30, dtype=torch.bool)
    known[3:9] = False
    known = known.repeat(2)
    expected = -made.label_head(frames[known]).log_softmax(1)[torch.arange(48), flat[known]].mean()
    torch.testing.assert_close(made(step).statistics["label_loss"], expected.detach())
    step.labels[:] = -1
    assert float(made(step).statistics["label_loss"]) == 0


def test_frozen_weights_have_no_gradient_and_never_change() -> None:
    made = model(train_layers=1)
    found = gradients(made, batch())
    assert {name.split(".")[3] for name in found if name.startswith("encoder.encoder.layers")} == {"2"}
    assert not any(name.startswith("encoder.encoder.front_end") for name in found)


def test_frozen_features_give_the_loss_of_waveforms() -> None:
    made = model()
    step = batch()
    first, counts = made.encoder.frozen_features(step.inputs, step.lengths)
    second, _ = made.encoder.frozen_features(step.second, step.lengths)
    kept = Batch(step.position, 1.0, first, counts, second=second)
    torch.testing.assert_close(made(step).loss, made(kept).loss, rtol=1e-5, atol=1e-6)


def labelled_batch() -> Batch:
    """18 and 12 frames with labels below 9."""
    labels = torch.randint(0, 9, (2, 18))
    labels[1, 12:] = -1
    return batch(labels=labels)


def labelled_frames(made: SpinModel, step: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of both views (60, D) and the labels (60,) of a ``labelled_batch``."""
    frames = torch.cat([valid_frames(*made.encoder(view, step.lengths)) for view in (step.inputs, step.second)])
    return frames, torch.cat([step.labels[0], step.labels[1, :12]] * 2)


def test_pseudo_labels_let_all_layers_train() -> None:
    encoder = TrainableEncoder(tiny_encoder(), train_front_end=True)
    made = SpinModel(encoder, PLANS[:1], SpinLossConfig(), CPU, labels=9, label_weight=5.0)
    made.normalize_codewords()
    step = labelled_batch()
    loss, figures = made(step)
    frames, flat = labelled_frames(made, step)
    expected = -made.label_head(frames).log_softmax(1)[torch.arange(60), flat].mean()
    torch.testing.assert_close(figures["label_loss"], expected.detach())
    torch.testing.assert_close(loss.detach(), figures["loss_primary"] + 5 * figures["label_loss"])
    assert any(name.startswith("encoder.encoder.front_end") for name in gradients(made, step))


def test_pseudo_labels_are_predicted_from_the_codes_of_every_codebook() -> None:
    made = SpinModel(
        TrainableEncoder(tiny_encoder()),
        PLANS,
        SpinLossConfig(),
        CPU,
        labels=9,
        label_weight=2.0,
        label_source="codes",
    )
    made.normalize_codewords()
    step = labelled_batch()
    loss, figures = made(step)
    frames, flat = labelled_frames(made, step)
    expected = 0.0
    for book, plan in zip(made.codebooks.values(), PLANS, strict=True):
        posterior = (book.embed(frames).double() @ book.normalized_codewords().double().T / 0.1).softmax(1)
        joint = torch.stack([posterior[flat == label].sum(0) for label in range(9)], dim=1) + 1e-3
        right = (posterior @ (joint / joint.sum(1, keepdim=True)))[torch.arange(60), flat]
        expected -= plan.weight * right.log().mean()
    torch.testing.assert_close(figures["label_loss"], expected.float())
    added = sum(plan.weight * figures[f"loss_{plan.name}"] for plan in PLANS)
    torch.testing.assert_close(loss.detach(), added + 2 * figures["label_loss"])
    made._label_loss(frames, [book.embed(frames) for book in made.codebooks.values()], flat).backward()
    assert all(book.codewords.grad.abs().sum() > 0 for book in made.codebooks.values())


def test_counts_of_labels_by_code_forget() -> None:
    counted = CodeLabels(2, 3, CPU)
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    counted(first, torch.tensor([0, 2]))
    assert counted.counts.tolist() == [[1, 0, 0], [0, 0, 1]]
    loss = counted(first[:1], torch.tensor([1]))
    torch.testing.assert_close(counted.counts, torch.tensor([[0.98, 0.02, 0], [0, 0, 0.98]]))
    assert float(loss) == pytest.approx(-math.log(0.021 / 1.003), rel=1e-5)


def test_the_tokenizer_reads_the_primary_codebook(speech) -> None:
    made = model()
    tokenizer = made.tokenizer("t")
    assert made.training
    assert tokenizer.codebook_names == ["primary", "auxiliary"]
    tokens = tokenizer.encode(speech / "fred_yes.flac")
    assert tokens.codebook_size == 6
    assert tokens.num_frames == 43


def test_a_collapsed_codebook_is_named() -> None:
    made = model()
    assert made.collapse_message({"perplexity_primary": 3.0, "perplexity_auxiliary": 2.5}) is None
    assert "'auxiliary' has collapsed: perplexity 1.50" in made.collapse_message({"perplexity_auxiliary": 1.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 4}, "layer must be in 1 ... 3"),
        ({"train_layers": 4, "train_front_end": False}, "train_layers must be at most 3"),
        ({"train_layers": 1}, "needs all 3 layers"),
    ],
)
def test_layers_that_do_not_exist(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        TrainableEncoder(tiny_encoder(), **options)
