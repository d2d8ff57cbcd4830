"""How good the policy of a run is: evaluations on the way and at the end, and where they are written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dreamer_agent.agent import Agent
from dreamer_agent.files import write_text
from dreamer_agent.registry import in_one_line
from dreamer_agent.training.evaluate import Evaluation, EvaluationStoppedError, evaluate
from dreamer_agent.training.saving import cut_episodes

if TYPE_CHECKING:
    from dreamer_agent.training.trainer import Trainer


def evaluation_of(
    trainer: Trainer, explore: bool, episodes: int | None, seed: int | None, agent: Agent
) -> Evaluation:
    """The averaged parameters, on fresh environments; see `Trainer.evaluate`."""
    train = trainer.config.train
    episodes = episodes or train.eval_episodes
    seed = trainer.config.seed if seed is None else seed
    env = trainer.make(min(train.eval_envs, episodes))
    try:
        evaluation = evaluate(
            agent, trainer.placement.whole(trainer.state.average), env, episodes, seed, explore,
            train.eval_max_length,
            stop=trainer.asked_to_end,
        )  # fmt: skip
    finally:
        if env is trainer.env:
            cut_episodes(trainer)
        else:
            env.close()
    if evaluation.faults and env is not trainer.env:  # of others, the trainer hears itself
        trainer.counters.faults += evaluation.faults
    return evaluation


def evaluate_on_the_way(trainer: Trainer) -> None:
    """Evaluate what acts, the policy with sampled actions or a planner, and log it.

    Environments that fail there end the first evaluation of a run, after a checkpoint; later ones are left out.
    """
    now = trainer.counters.env_steps
    try:
        planning = trainer.agent if trainer.agent.planner is not None else None
        evaluation = trainer.evaluate(explore=planning is None, agent=planning)
    except EvaluationStoppedError:
        raise
    except Exception as error:
        if trainer.evaluated is None:  # perhaps none will ever succeed
            trainer.save()
            trainer.checkpoints.settle()
            raise
        trainer.counters.evaluated = now
        trainer.screen.say(f"{now:>12,} evaluation: left out, since it failed ({in_one_line(error)})")
        return
    trainer.counters.evaluated, trainer.evaluated = now, evaluation.mean
    summary = evaluation.summary()
    numbers = {f"episode/{name}": mean for name, mean in summary.pop("numbers").items()}
    row = {key: value for key, value in (summary | numbers).items() if key != "policy"}
    trainer.writer.write(now, {f"evaluation/{key}": value for key, value in row.items()})
    trainer.screen.say(f"{now:>12,} evaluation: return {evaluation.mean:.1f}{_faults(evaluation.faults)}")


def write_scores(trainer: Trainer, evaluations: list[Evaluation]) -> None:
    """Write the final evaluations to `evaluation.json`, and say what they came to."""
    scores = [evaluation.summary() for evaluation in evaluations]
    counters = trainer.counters
    content = {"env_steps": counters.env_steps, "updates": counters.updates, "scores": scores}
    write_text(trainer.folder / "evaluation.json", json.dumps(content, indent=2) + "\n")
    for score in scores:
        trainer.screen.say(
            f"final policy, {score['policy']} actions: return {score['return_mean']:.1f} "
            f"± {score['return_std']:.1f} over {score['episodes']} episodes{_cut(score)}"
            f"{_faults(score['faults'])}"
        )


def _faults(count: int) -> str:
    return f"; {count} episodes ended early, since their environments failed" if count else ""


def _cut(score: dict[str, Any]) -> str:
    cut = score["episodes_cut"]
    return f", {cut} of them cut at {score['length_max']:,} env steps" if cut else ""
