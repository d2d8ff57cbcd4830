"""Train CartPole from Python, score it, and look at how well the world model predicts the reward.

python experiments/cartpole.py
"""

from dreamer_agent import dream_run, load_config, train


def main() -> None:
    config = load_config(["classic"], ["env.id=CartPole-v1"])
    sampled, mode = train(config, "runs/experiment-cartpole")
    print(f"sampled actions {sampled.mean:.1f}, likeliest actions {mode.mean:.1f}")
    dream = dream_run("runs/experiment-cartpole")
    error = dream.error_by_step("reward")
    print(f"mean squared error of the reward: observed {error[: dream.observed].mean():.4f}, ", end="")
    print(f"imagined {error[dream.observed :].mean():.4f}")


if __name__ == "__main__":
    main()
