"""Carry control cells to where perturbed cells really are, and score it honestly."""

from importlib import import_module

__version__ = "0.2.0"

# One flat namespace over the modules. Names load on first use: importing the package costs nothing, and a Task needs no torch.
_HOME = {
    "DataError": "core",
    "Task": "tasks",
    "TimeCourseTask": "time_tasks",
    "TimeCourseModel": "multiome",
    "check": "checks",
    "read": "measurements",
    "read_modalities": "measurements",
    "load": "datasets",
    "haematopoiesis": "datasets",
    "blood_network": "networks",
    "read_network": "networks",
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
    "PopulationWorld": "worlds",
    "ScreenWorld": "testbeds",
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
    "as_prediction": "prediction",
    "set_features": "priors",
    "network_features": "priors",
    "fit": "prediction",
    "Model": "prediction",
    "load_model": "prediction",
    "top_moved": "interpretation",
    "enrich": "meaning",
    "enrichment_agreement": "meaning",
    "enrich_course": "courses",
    "order_agreement": "courses",
    "evaluate": "reports",
    "Report": "reports",
    "cell_eval_pair": "evaluation",
    "ensemble": "uncertainty",
    "response_interval": "uncertainty",
    "coverage": "uncertainty",
    "leaderboard": "leaderboards",
    "each": "workers",
    "rank_methods": "leaderboards",
    "paired_difference": "leaderboards",
    "steer": "steering",
    "Plan": "reprogramming",
    "read_screen": "signatures",
    "name_cause": "signatures",
    "Laboratory": "laboratory",
    "reproduce": "paper",
    "audit": "audits",
}
# Verbs take time courses, too, which register themselves.
_ALSO = {"fit": "multiome", "load_model": "multiome", "evaluate": "time_reports", "Report": "time_reports"}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name in _HOME:
        if name in _ALSO:
            import_module(f"{__name__}.{_ALSO[name]}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
