"""Carry control cells to where perturbed cells really are, and score it honestly."""

from importlib import import_module

__version__ = "0.1.0"

# One flat namespace over the modules. Names load on first use: importing the package costs nothing, and a Task needs no torch.
_HOME = {
    "DataError": "core",
    "Task": "tasks",
    "TimeTask": "tasks",
    "read": "tasks",
    "read_modalities": "tasks",
    "load": "datasets",
    "haematopoiesis": "datasets",
    "boolean_network": "datasets",
    "fit_pca": "representations",
    "fit_autoencoder": "representations",
    "Landscape": "landscapes",
    "Push": "landscapes",
    "Signals": "landscapes",
    "fixed_points": "landscapes",
    "minimum_action_path": "landscapes",
    "optimal_control": "landscapes",
    "density_potential": "landscapes",
    "timed_potential": "landscapes",
    "plot_surface": "landscapes",
    "TransportWorld": "worlds",
    "ScreenWorld": "worlds",
    "StateWorld": "worlds",
    "VectorWorld": "worlds",
    "WorldEnv": "worlds",
    "Restart": "worlds",
    "mean_return": "rollouts",
    "Agent": "training",
    "agent_for": "training",
    "clone": "training",
    "SB3Model": "training",
    "TRPO": "training",
    "PPO": "training",
    "train": "training",
    "no_change": "baselines",
    "mean_shift": "baselines",
    "transport_ridge": "baselines",
    "as_prediction": "baselines",
    "set_features": "baselines",
    "network_features": "baselines",
    "fit": "prediction",
    "Model": "prediction",
    "fit_course": "multiome",
    "score_course": "multiome",
    "top_moved": "interpretation",
    "evaluate": "evaluation",
    "Report": "evaluation",
    "cell_eval_pair": "evaluation",
    "ensemble": "uncertainty",
    "response_interval": "uncertainty",
    "coverage": "uncertainty",
    "leaderboard": "leaderboards",
    "rank_methods": "leaderboards",
    "paired_difference": "leaderboards",
    "reproduce": "paper",
    "audit": "audits",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
