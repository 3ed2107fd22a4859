"""A workspace hands out the same memory again, and never memory that another tensor needs."""

from __future__ import annotations

import torch

from reference_model.workspace import Workspace


def test_a_name_has_the_same_memory_again_and_another_name_its_own() -> None:
    workspace = Workspace()
    first, other = workspace.empty("a", 3, 4), workspace.empty("b", 3, 4)
    assert workspace.empty("a", 2, 6, dtype=torch.int32).data_ptr() == first.data_ptr()
    assert other.data_ptr() != first.data_ptr()
    assert workspace.nbytes == 2 * 3 * 4 * 4


def test_a_larger_tensor_leaves_the_one_before_it_alone() -> None:
    workspace = Workspace()
    first = workspace.empty("a", 3).fill_(1)
    workspace.empty("a", 1000).fill_(2)
    assert first.eq(1).all()
    assert workspace.empty("a", 3).eq(2).all()


def test_a_head_stays_where_it_was_with_fewer_tokens() -> None:
    workspace = Workspace(room=10)
    many, few = workspace.tokens("a", 2, 10, 4), workspace.tokens("a", 2, 7, 4)
    assert few.shape == (2, 7, 4)
    assert few[1].data_ptr() == many[1].data_ptr()


def test_what_is_made_is_made_again_once_its_memory_has_moved() -> None:
    workspace, made = Workspace(), []

    def twice() -> torch.Tensor:
        made.append(workspace.empty("a", 4))
        return made[-1]

    assert workspace.once("key", twice) is workspace.once("key", twice)
    workspace.empty("a", 5)
    assert workspace.once("key", twice).data_ptr() == workspace.empty("a", 5).data_ptr()
    assert len(made) == 2


def test_a_buffer_of_inference_mode_can_be_written_to_without() -> None:
    workspace = Workspace(room=3)
    with torch.inference_mode():
        workspace.empty("a", 4).fill_(1)
        workspace.tokens("b", 2, 2, 1).fill_(1)
    assert workspace.empty("a", 4).add_(1).sum() == 8
    assert workspace.tokens("b", 2, 2, 1).add_(1).sum() == 8


def test_without_reuse_every_tensor_is_a_new_one() -> None:
    workspace = Workspace(reused=False)
    first = workspace.empty("a", 4)
    assert workspace.empty("a", 4).data_ptr() != first.data_ptr()
    assert workspace.nbytes == 0
