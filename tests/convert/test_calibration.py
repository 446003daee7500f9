import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mercer.convert.calibration import Batch, Calibration

NET = nn.Linear(3, 3)


def starts(calibration: Calibration) -> list[int]:
    return [batch.start for batch in calibration.batches]


class TestForms:
    def test_a_tensor_is_split_into_batches(self):
        x = torch.randn(600, 3)
        read = Calibration(x)
        assert read.num_samples == 600
        assert starts(read) == [0, 256, 512]
        assert torch.equal(torch.cat([batch.args[0] for batch in read.batches]), x)

    @pytest.mark.parametrize(
        "batches",
        [
            [torch.ones(4, 3), torch.ones(2, 3)],
            (torch.ones(n, 3) for n in (4, 2)),
            ((torch.ones(n, 3), None, 7) for n in (4, 2)),
            [[torch.ones(4, 3)], [torch.ones(2, 3)]],
            [{"x": torch.ones(n, 3), "flag": True} for n in (4, 2)],
            DataLoader(TensorDataset(torch.ones(6, 3), torch.zeros(6)), batch_size=4),
        ],
    )
    def test_batches(self, batches):
        read = Calibration(batches)
        assert (read.num_samples, starts(read)) == (6, [0, 4])

    def test_arguments_arrive_as_they_were_given(self):
        first, second = Calibration(
            [(torch.ones(1), "a"), {"x": torch.zeros(2), "flag": True}]
        ).batches
        assert first.args[1] == "a" and first.kwargs == {}
        assert second.args == () and second.kwargs["flag"] is True

    def test_one_mapping_is_one_batch(self):
        read = Calibration({"input_ids": torch.ones(5, 2, dtype=torch.long)})
        assert len(read.batches) == 1 and read.num_samples == 5

    def test_what_tokenizers_return(self):
        transformers = pytest.importorskip("transformers")
        batch = transformers.BatchEncoding({"input_ids": torch.ones(5, 2, dtype=torch.long)})
        assert Calibration(batch).num_samples == 5
        assert Calibration([batch, batch]).num_samples == 10

    def test_empty_batches_are_left_out(self):
        read = Calibration([torch.ones(0, 3), torch.ones(4, 3), torch.ones(0, 3), torch.ones(1, 3)])
        assert starts(read) == [0, 4]

    def test_masks_that_are_added_may_be_infinite(self):
        causal = nn.Transformer.generate_square_subsequent_mask(4)
        assert Calibration([{"src": torch.ones(2, 4, 3), "mask": causal}]).num_samples == 2

    @pytest.mark.parametrize(
        ("calibrate", "error", "match"),
        [
            (None, TypeError, "calibrate: expected a tensor or an iterable"),
            ("text", TypeError, "calibrate: expected a tensor or an iterable"),
            (3.0, TypeError, "calibrate: expected a tensor or an iterable"),
            (torch.tensor(1.0), ValueError, "calibrate: .*scalar"),
            (torch.ones(0, 3), ValueError, "calibrate: expected at least one sample"),
            ([], ValueError, "calibrate: expected at least one sample"),
            (iter(()), ValueError, "calibrate: expected at least one sample"),
            (["text"], TypeError, "calibrate: batch 0 is a str"),
            ([torch.ones(2, 3), 7], TypeError, "calibrate: batch 1 is a int"),
            ([{"input_ids": [[1, 2]]}], ValueError, "calibrate: batch 0 holds no tensor"),
            ([()], ValueError, "calibrate: batch 0 holds no tensor"),
            (torch.tensor([[1.0, float("nan")]]), ValueError, "calibrate: batch 0: 1 of 2"),
            (torch.tensor([[1.0, float("-inf")]]), ValueError, "calibrate: batch 0: 1 of 2"),
            ([(torch.ones(2), torch.tensor(torch.inf))], ValueError, "calibrate: batch 0"),
        ],
    )
    def test_refuses(self, calibrate, error, match):
        with pytest.raises(error, match=match):
            Calibration(calibrate)


class TestCall:
    def test_gives_copies(self):
        class Greedy(nn.Module):
            def forward(self, x, *, more):
                return x.zero_(), more[0].zero_()

        x, more = torch.ones(2, 3), [torch.ones(2)]
        (batch,) = Calibration([{"x": x, "more": more}]).batches
        batch.call(Greedy())
        assert bool(x.all()) and bool(more[0].all())

    def test_the_dtype_stays(self):
        class Same(nn.Module):
            def forward(self, x):
                return x

        x = torch.ones(2, 3, dtype=torch.int32)
        assert Batch((x,), {}, 0).call(nn.Sequential(Same(), nn.Identity())).dtype == torch.int32


class Text(nn.Module):
    def forward(self, input_ids, attention_mask=None):
        return input_ids


def rows_of(calibration, *shape, model=NET):
    """Rows and held-out marks of an activation that numbers its rows, per batch."""
    found = []
    for batch in calibration.batches:
        leading = torch.Size(shape) if shape else next(batch.tensors()).shape[:-1]
        numbered = torch.arange(leading.numel()).reshape(*leading, 1).expand(*leading, 2)
        rows, held_out = calibration.rows(batch, numbered.float(), model)
        assert rows.shape == (len(held_out), 2)
        found.append((rows[:, 0].int().tolist(), held_out.tolist()))
    return found


class TestRows:
    def test_every_eighth_sample_is_held_out_across_batches(self):
        read = Calibration([torch.ones(n, 3) for n in (5, 12, 4)])
        held_out = [held for _, marks in rows_of(read) for held in marks]
        assert [i for i, held in enumerate(held_out) if held] == [7, 15]

    def test_with_few_samples_every_eighth_row(self):
        ((rows, held_out),) = rows_of(Calibration(torch.ones(3, 6, 3)))
        assert rows == list(range(18))
        assert [i for i, held in enumerate(held_out) if held] == [7, 15]

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(1, 20), min_size=1, max_size=3),
        st.integers(1, 5),
        st.randoms(use_true_random=False),
        st.sampled_from(["keyword", "position", "added", "flat"]),
    )
    def test_padding_does_not_count(self, sizes, length, random, form):
        masks = [
            torch.tensor([[random.random() < 0.7 for _ in range(length)] for _ in range(size)])
            for size in sizes
        ]
        if form == "added":  # as torch's encoders take it: true or -inf where there is padding
            batches = [
                {
                    "src": torch.ones(*mask.shape, 3),
                    "src_key_padding_mask": torch.zeros(mask.shape).masked_fill(~mask, -torch.inf),
                }
                for mask in masks
            ]
        elif form == "keyword":
            batches = [{"input_ids": m.long(), "attention_mask": m.long()} for m in masks]
        else:
            batches = [(mask.long(), mask.long()) for mask in masks]
        read, start = Calibration(batches), 0
        for batch, mask in zip(read.batches, masks, strict=True):
            shape = (mask.numel(),) if form == "flat" else tuple(mask.shape)
            numbered = torch.arange(mask.numel()).reshape(*shape, 1)
            model = nn.TransformerEncoderLayer(3, 1, 2, batch_first=True)
            rows, held_out = read.rows(batch, numbered, model if form == "added" else Text())
            expected = [i for i, real in enumerate(mask.flatten().tolist()) if real]
            assert rows[:, 0].tolist() == expected
            whole = read.num_samples >= 16
            of = [(start + i // length) if whole else i for i in expected]
            assert held_out.tolist() == [i % 8 == 7 for i in of]
            start += len(mask)

    def test_sequences_along_the_first_axis(self):
        padding = torch.tensor([[False, False, True], [False, True, True]])  # (n, s)
        read = Calibration([{"src": torch.ones(3, 2, 8), "src_key_padding_mask": padding}])
        layer = nn.TransformerEncoderLayer(8, 2, 4, batch_first=False)
        ((rows, _),) = rows_of(read, 3, 2, model=layer)
        assert rows == [0, 1, 2]  # token 0 of both, token 1 of the first

    def test_one_sequence_without_a_batch_axis(self):
        padding = torch.tensor([False, False, True])
        read = Calibration([{"src": torch.ones(3, 8), "src_key_padding_mask": padding}])
        for batch_first in (False, True):
            layer = nn.TransformerEncoderLayer(8, 2, 4, batch_first=batch_first)
            assert rows_of(read, 3, model=layer)[0][0] == [0, 1]

    def test_a_pooled_activation_has_no_padding(self):
        mask = torch.tensor([[1, 0, 0], [1, 1, 0]])
        read = Calibration([{"input_ids": mask, "attention_mask": mask}])
        assert rows_of(read, 2, model=Text())[0][0] == [0, 1]

    def test_masks_of_another_shape_are_the_models_own(self):
        read = Calibration([{"x": torch.ones(2, 3, 4), "attention_mask": torch.zeros(2, 1, 3, 3)}])
        assert len(rows_of(read, 2, 3)[0][0]) == 6


def test_forward_may_take_anything():
    class Wrapped(nn.Module):
        @functools.wraps(Text.forward)
        def forward(self, *args, **kwargs):
            return None

    mask = torch.tensor([[1, 0]])
    assert rows_of(Calibration([(mask, mask)]), 1, 2, model=Wrapped())[0][0] == [0]
    assert rows_of(Calibration([{"y": mask, "attention_mask": mask}]), 1, 2, model=Loose()) == [
        ([0], [False])
    ]


class Loose(nn.Module):
    def forward(self, *args, **kwargs):
        return None
