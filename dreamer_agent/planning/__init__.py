"""Planners over one model: random shooting, CEM, MPPI, by gradients, and tree search."""

from dreamer_agent.planning.gradient import GradientPlanner
from dreamer_agent.planning.learned import learned_model
from dreamer_agent.planning.model import Model, Outcome, Score
from dreamer_agent.planning.proposal import Proposal
from dreamer_agent.planning.sampling import CEM, MPPI, Planner, RandomShooting
from dreamer_agent.planning.tree import TreeSearch

__all__ = [
    "CEM",
    "MPPI",
    "GradientPlanner",
    "Model",
    "Outcome",
    "Planner",
    "Proposal",
    "RandomShooting",
    "Score",
    "TreeSearch",
    "learned_model",
]
