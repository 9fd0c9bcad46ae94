from dataclasses import replace

import pytest
import torch
from loss_samples import ROI_M, box_targets, frame_targets, line_targets, perfect_step, random_boxes

from sparsedrive.losses.criterion import CriterionConfig, compute_losses
from sparsedrive.losses.detection import BoxLossConfig, detection_losses
from sparsedrive.losses.futures import FutureLossConfig, best_mode, plan_losses, steps_of, take_mode
from sparsedrive.losses.mapping import LineLossConfig, map_losses
from sparsedrive.losses.matching import BoxCost, LineCost, match_boxes, match_lines
from sparsedrive.structures import CameraRig, DecoderStep, Frame, InstancePredictions, PlanPredictions, Predictions

LABEL = torch.tensor([[0, 5, 8, 9, 2]])


def boxes_and_match(step=None, targets=None):
    targets = targets or box_targets(random_boxes(5), LABEL)
    step = step or perfect_step(targets)
    return step, targets, match_boxes(step, targets, BoxCost())


def test_right_answers_cost_nothing():
    step, targets, match = boxes_and_match()
    losses = detection_losses(step, targets, match, torch.tensor(5.0), BoxLossConfig())
    assert losses.box == pytest.approx(0, abs=1e-5) and losses.classification < 1e-4
    assert losses.centerness < 1e-3 and losses.yawness < 1e-3


def test_box_loss_is_the_weighted_distance():
    step, targets, match = boxes_and_match()
    moved = replace(step, state=step.state + torch.tensor([0.5] + [0.0] * 10))
    losses = detection_losses(moved, targets, match, torch.tensor(5.0), BoxLossConfig())
    assert losses.box == pytest.approx(0.5 * 0.25 * (4 * 2.0 + 4.0) / 5, rel=1e-4)  # the cone counts twice


def test_a_barrier_may_be_seen_from_the_other_side_and_a_car_not():
    step, targets, match = boxes_and_match()
    state = step.state.clone()
    state[..., 6:8] *= -1
    wrong = replace(step, state=state)
    only = {name: BoxLossConfig(reversible_classes=classes) for name, classes in (("none", ()), ("barrier", (5,)))}
    none, barrier = (detection_losses(wrong, targets, match, torch.tensor(5.0), config) for config in only.values())
    assert barrier.box < none.box and barrier.yawness < none.yawness


def test_unsure_predictions_are_not_refined():
    targets = box_targets(random_boxes(5), LABEL)
    step, _, match = boxes_and_match(perfect_step(targets, confidence=8.0), targets)
    unsure = replace(step, class_logits=torch.full_like(step.class_logits, -8.0), state=step.state + 1)
    losses = detection_losses(unsure, targets, match, torch.tensor(5.0), BoxLossConfig())
    assert losses.box == 0 and losses.centerness == 0 and losses.classification > 1


def test_unknown_velocity_has_no_gradient():
    targets = box_targets(random_boxes(5), LABEL)
    unknown = replace(targets, box=torch.cat([targets.box[..., :7], torch.full((1, 5, 3), float("nan"))], -1))
    step = perfect_step(targets)
    state = (step.state + 0.3).requires_grad_()
    match = match_boxes(step, unknown, BoxCost())
    losses = detection_losses(replace(step, state=state), unknown, match, torch.tensor(5.0), BoxLossConfig())
    losses.box.backward()
    assert losses.box.isfinite() and (state.grad[..., 8:] == 0).all() and (state.grad[:, 3:, 0] != 0).all()


def test_line_loss_takes_the_better_direction():
    points_m = torch.stack([torch.linspace(-5, 5, 20), torch.linspace(0, 20, 20)], -1)
    targets = line_targets(points_m[None, None], torch.tensor([[1]]))
    logits = torch.tensor([[[-8.0, 8.0, -8.0]]])
    step = DecoderStep(class_logits=logits, state=points_m.flip(0).reshape(1, 1, 40), quality=None)
    match = match_lines(step, targets, ROI_M, LineCost())
    losses = map_losses(step, targets, match, torch.tensor(1.0), ROI_M, LineLossConfig())
    assert losses.line == pytest.approx(0, abs=1e-5)
    one = replace(step, state=step.state + torch.tensor([3.0, 0.0] * 20))
    far = map_losses(one, targets, match, torch.tensor(1.0), ROI_M, LineLossConfig())
    assert far.line == pytest.approx(10 * (3.0 / 30 - 0.005), rel=1e-3)  # smooth L1 beyond beta, 20 points over 20


def test_best_mode_is_the_nearest_over_known_steps():
    path_m = torch.tensor([[[0.0, 1.0], [0.0, 2.0], [9.0, 9.0]]])
    modes_m = torch.tensor([[[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3]])
    known = torch.tensor([[True, True, False]])
    assert best_mode(modes_m, path_m, known).tolist() == [1]
    assert best_mode(modes_m, path_m, torch.zeros_like(known)).tolist() == [0]
    assert torch.equal(take_mode(modes_m, torch.tensor([1])), modes_m[:, 1])
    assert torch.equal(steps_of(path_m).cumsum(-2), path_m)


def plan_frame(command: int, batch: int = 1) -> Frame:
    rig = CameraRig(
        image_T_ego=torch.zeros(batch, 1, 4, 4), image_wh_px=torch.ones(batch, 1, 2), focal_px=torch.ones(batch, 1),
        available=torch.ones(batch, 1, dtype=torch.bool), names=("CAM",),
    )  # fmt: skip
    return Frame(
        images=torch.zeros(batch, 1, 3, 4, 4), rig=rig, global_T_ego=torch.eye(4).double().repeat(batch, 1, 1),
        time_s=torch.zeros(batch).double(), sequence_id=torch.zeros(batch, dtype=torch.int64), ego_status=torch.zeros(batch, 10),
        command=torch.full((batch,), command),
    )  # fmt: skip


def plan_predictions() -> PlanPredictions:
    offsets_m = torch.randn(1, 3, 6, 6, 2, generator=torch.Generator().manual_seed(0))
    return PlanPredictions(
        mode_logits=torch.zeros(1, 3, 6).requires_grad_(), step_offsets_m=offsets_m.requires_grad_(), ego_status=torch.ones(1, 10),
        history_state=torch.zeros(1, 4, 11), period=torch.ones(1, dtype=torch.int64),
    )  # fmt: skip


def sample_targets(**changes):
    boxes = box_targets(random_boxes(5), LABEL)
    lines = line_targets(torch.rand(1, 2, 20, 2) * 10, torch.tensor([[1, 2]]))
    return replace(frame_targets(boxes, lines), **changes)


def test_only_the_given_command_learns():
    plan = plan_predictions()
    losses = plan_losses(plan, plan_frame(command=1), sample_targets(), FutureLossConfig())
    (losses.classification + losses.path).backward()
    assert (plan.step_offsets_m.grad[:, [0, 2]] == 0).all() and (plan.step_offsets_m.grad[:, 1] != 0).any()
    assert (plan.mode_logits.grad[:, [0, 2]] == 0).all() and (plan.mode_logits.grad[:, 1] != 0).all()


def test_unknown_ego_status_does_not_count():
    known = torch.zeros(1, 10, dtype=torch.bool)
    frame = replace(plan_frame(0), ego_status=torch.full((1, 10), 3.0))
    config = FutureLossConfig()
    assert plan_losses(plan_predictions(), frame, sample_targets(ego_status_known=known), config).ego_status == 0
    known[0, :4] = True
    assert plan_losses(plan_predictions(), frame, sample_targets(ego_status_known=known), config).ego_status == pytest.approx(2.0)


def predictions(targets, plan=None) -> Predictions:
    step = perfect_step(targets.boxes)
    count = step.state.shape[1]
    lines = DecoderStep(class_logits=torch.zeros(1, 4, 3), state=torch.zeros(1, 4, 40), quality=None)

    def instances(step, repeat):
        return InstancePredictions(
            steps=[step] * repeat, feature=torch.zeros(1, count, 4), embed=torch.zeros(1, count, 4), track_id=torch.zeros(1, count)
        )

    return Predictions(detection=instances(step, 2), map=instances(lines, 1), motion=None, plan=plan, depth_m=None)


def test_all_losses_are_named_and_summed():
    targets = sample_targets()
    losses = compute_losses(predictions(targets, plan_predictions()), plan_frame(0), targets, CriterionConfig())
    expected = {f"detection.{layer}.{term}" for layer in (0, 1) for term in ("class", "box", "centerness", "yawness")}
    assert losses.by_name.keys() == expected | {"map.0.class", "map.0.line", "plan.class", "plan.path", "plan.ego_status"}
    assert losses.total.item() == pytest.approx(sum(value.item() for value in losses.by_name.values()), rel=1e-6)
    assert len(losses.detection_matches) == 2 and len(losses.map_matches) == 1


def test_a_frame_without_anything_gives_finite_losses_with_gradients():
    empty_boxes = box_targets(torch.zeros(1, 0, 10), torch.zeros(1, 0, dtype=torch.int64))
    empty_lines = line_targets(torch.zeros(1, 0, 20, 2), torch.zeros(1, 0, dtype=torch.int64))
    targets = frame_targets(empty_boxes, empty_lines, ego_valid=False)
    found = predictions(sample_targets(), plan_predictions())
    logits = found.detection.steps[0].class_logits.clone().requires_grad_()
    found = replace(found, detection=replace(found.detection, steps=[replace(found.detection.steps[0], class_logits=logits)]))
    losses = compute_losses(found, plan_frame(0), targets, CriterionConfig())
    losses.total.backward()
    assert losses.total.isfinite() and logits.grad.isfinite().all() and (logits.grad > 0).all()
    assert losses.by_name["plan.path"] == 0 and losses.by_name["detection.0.box"] == 0


def test_more_processes_average_the_positives():
    targets = sample_targets()
    alone = compute_losses(predictions(targets), plan_frame(0), targets, CriterionConfig())
    many = compute_losses(predictions(targets), plan_frame(0), targets, CriterionConfig(), lambda count: 2 * count)
    assert many.by_name["map.0.class"] == pytest.approx(float(alone.by_name["map.0.class"]) / 2, rel=1e-5)
