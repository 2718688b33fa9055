"""When poses are searched, and when they have settled, on made-up histories."""

import dataclasses

from jaxrelax.refinement.pose_schedule import global_due, inner_due, poses_settled
from tests.refinement.made_up import NOTHING


def test_registers_go_on_at_held_poses_until_they_stand_still():
    def rows(*pairs):
        return tuple(
            dataclasses.replace(NOTHING, held_poses=held, register_change=change)
            for held, change in pairs
        )

    assert not inner_due((), 3)
    assert not inner_due(rows((False, 0.5)), 0)
    assert inner_due(rows((False, 0.5)), 3)
    assert inner_due(rows((False, 0.5), (True, 0.2), (True, 0.1)), 3)
    assert not inner_due(rows((False, 0.5), (True, 0.2), (True, 0.1), (True, 0.1)), 3)
    assert not inner_due(rows((False, 0.5), (True, 0.005)), 3)
    assert not inner_due(rows((False, 0.005)), 3)


def searched(jumps, resolutions, followed=(), settled=0):
    """A history of global searches, of what followed each of them, and of settled poses."""
    rows = []
    between = dataclasses.replace(NOTHING, pose_jumps=0.9, mean_fsc=0.1)
    for j, r in zip(jumps, resolutions, strict=True):
        rows.append(
            dataclasses.replace(NOTHING, searched_globally=True, pose_jumps=j, mean_fsc=4.0 / r)
        )
        rows += [dataclasses.replace(between, pose_jumps=f) for f in followed]
    return tuple(rows + [dataclasses.replace(between, poses_settled=True)] * settled)


def test_poses_settle_when_hardly_any_image_finds_another():
    assert not poses_settled(searched([1.0, 0.0], [20.0, 20.0]))
    assert poses_settled(searched([1.0, 0.2, 0.004], [20.0, 15.0, 12.0]))
    assert not poses_settled(searched([1.0, 0.2, 0.05], [20.0, 20.0, 20.0]))


def test_poses_of_images_that_jump_for_ever_settle_with_the_resolution():
    jumps, flat = [1.0, 0.5, 0.3, 0.3, 0.3], [20.0] * 5
    assert poses_settled(searched(jumps, flat))
    assert not poses_settled(searched(jumps, [20.0, 18.0, 16.0, 14.0, 12.0]))
    assert not poses_settled(searched([1.0, 0.5, 0.3, 0.25, 0.2], flat))


def test_poses_settle_when_a_search_finds_no_more_than_following_did():
    jumps, sharper = [1.0, 0.09, 0.03], [20.0, 18.0, 16.0]
    assert poses_settled(searched(jumps, sharper, followed=(0.04, 0.03)))
    assert not poses_settled(searched(jumps, sharper, followed=(0.03, 0.02)))
    # Two searches say nothing yet.
    assert not poses_settled(searched(jumps[:2], sharper[:2], followed=(0.1, 0.1)))


def test_half_maps_that_agree_further_between_searches_agree_further():
    history = list(searched([1.0, 0.5, 0.3, 0.3, 0.3], [20.0] * 5, followed=(0.1, 0.1)))
    assert poses_settled(tuple(history))
    history[-5] = dataclasses.replace(history[-5], mean_fsc=4.0 / 15.0)
    assert not poses_settled(tuple(history))


def test_settled_poses_stay_settled():
    unsettled = searched([1.0, 0.5, 0.2], [20.0, 18.0, 16.0])
    assert not poses_settled(unsettled)
    assert poses_settled(searched([1.0, 0.5, 0.2], [20.0, 18.0, 16.0], settled=1))


def test_without_global_searches_nothing_is_said_to_have_settled():
    assert not poses_settled(())
    assert not poses_settled(searched([], [], settled=5))


def test_everything_is_searched_again_and_again_and_less_often_when_few_images_jump():
    assert global_due(())
    assert global_due(searched([1.0, 0.5], [20.0, 20.0]))
    few = [1.0, 0.5, 0.09], [20.0] * 3
    assert not global_due(searched(*few))
    assert not global_due((*searched(*few), *searched([], [], settled=1)))
    assert global_due((*searched(*few), *searched([], [], settled=2)))
    # Registers and maps alone, at held poses, are no search.
    held = dataclasses.replace(NOTHING, held_poses=True)
    assert not global_due((*searched(*few), *[held] * 5))
    # Many jump again: no time to follow them.
    assert global_due(searched([1.0, 0.5, 0.09, 0.2], [20.0] * 4))
