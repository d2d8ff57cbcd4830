"""Planners over one model: random shooting, CEM, MPPI, by gradients, and tree search."""

from dreamer_agent.planning.careful import Careful, check_doubt
from dreamer_agent.planning.gradient import GradientPlanner
from dreamer_agent.planning.learned import ObservedReward, learned_model, seen_reward
from dreamer_agent.planning.model import Model, Outcome, Score, explored, restarted
from dreamer_agent.planning.named import NONE, PLANNERS, name_of, planner_of, register_planner
from dreamer_agent.planning.proposal import Proposal
from dreamer_agent.planning.sampling import CEM, MPPI, Planner, RandomShooting
from dreamer_agent.planning.tree import TreeSearch

__all__ = [
    "CEM",
    "MPPI",
    "NONE",
    "PLANNERS",
    "Careful",
    "GradientPlanner",
    "Model",
    "ObservedReward",
    "Outcome",
    "Planner",
    "Proposal",
    "RandomShooting",
    "Score",
    "TreeSearch",
    "check_doubt",
    "explored",
    "learned_model",
    "name_of",
    "planner_of",
    "register_planner",
    "restarted",
    "seen_reward",
]
