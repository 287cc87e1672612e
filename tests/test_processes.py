"""Two processes, started as torchrun starts them, train the agent that one process trains on the same batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from waddington_nb.core import DataError
from waddington_nb.policies import log_prob, processes, sample
from waddington_nb.rollouts import Batch
from waddington_nb.training import PPO, TRPO, Agent, agent_for, train
from waddington_nb.worlds import StateWorld

ROWS, SPLIT = 512, 128  # of the whole batch, and of a minibatch
STAGES = {
    "trpo": TRPO(max_kl=0.05, sub_sampling_factor=2, n_critic_updates=3, batch_size=SPLIT),
    "ppo": PPO(n_epochs=3, batch_size=SPLIT, target_kl=0.05, ent_coef=0.01),
    "penalty": PPO(n_epochs=2, batch_size=SPLIT, kl_penalty=True, clip_range=None),
}


class Hill(StateWorld):
    "A plane whose cells earn by being near (1, 1)."

    observation_size, action_size, horizon = 2, 2, 4

    def start(self, cells, generator):
        return torch.randn(cells, 2, generator=generator)

    def advance(self, state, action):
        state = state + 0.5 * action.clamp(-1, 1)
        return state, -(state - 1).square().sum(dim=-1)


def batch_of(agent: Agent, seed: int) -> Batch:
    "The whole batch, the same wherever it is made."
    generator = torch.Generator().manual_seed(seed)
    drawn = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    observation = drawn(ROWS, 5) * 3 + 1
    with torch.no_grad():
        p = agent.policy(observation)
        action = sample(p, generator)
        return Batch(
            observation, action, log_prob(p, action),
            drawn(ROWS) * observation[:, 0], drawn(ROWS), agent.value(observation), mean_return=0.0,
        )  # fmt: skip


def part_of(batch: Batch, rank: int, size: int) -> Batch:
    "The rows of one process: a block of the whole."
    own = slice(rank * ROWS // size, (rank + 1) * ROWS // size)
    return Batch(*(getattr(batch, f)[own] for f in list(Batch.__dataclass_fields__)[:-1]), mean_return=0.0)


def paired_order(n: int, **_) -> torch.Tensor:
    "An order of rows whose minibatches are, over two processes and in one, of the same rows."
    half, chunk = ROWS // 2, SPLIT // 2
    order = torch.arange(half).roll(7)
    if n == half:
        return order
    return torch.cat([torch.cat([piece, piece + half]) for piece in order.split(chunk)])


def new_agent() -> Agent:
    "In double precision, so that what differs is no rounding."
    agent = Agent(5, 3, seed=1, normalise=True, hidden=(16,))
    agent.policy.double(), agent.value.double()
    return agent


def updated(name: str, rank: int, size: int) -> dict[str, torch.Tensor]:
    "The agent after three updates by a stage."
    agent = new_agent()
    agent.see(part_of(batch_of(agent, 9), rank, size).observation)
    for seed in range(3):
        part = part_of(batch_of(agent, seed), rank, size)
        STAGES[name].update(agent, part, torch.Generator().manual_seed(0), left=1.0)
        agent.see(part.observation)
    return {f"{name}.{k}": v for k, v in agent.tensors().items()}


def resumed(checkpoint: Path) -> dict[str, torch.Tensor]:
    "The agent of a training that was stopped after seven iterations, and goes on from its checkpoint."
    asked = {"seed": 3, "n_envs": 200, "checkpoint": checkpoint}
    for stop in (lambda agent, row: row["steps"] >= 5600, None):
        agent = agent_for(Hill(), 0, hidden=(16,))
        train(Hill(), agent, [TRPO(steps=8000), PPO(steps=8000)], callback=stop, **asked)
    return agent.tensors()


def work(out: Path) -> None:
    "What each of two processes does."
    torch.distributed.init_process_group("gloo")
    rank, order = torch.distributed.get_rank(), torch.randperm
    torch.randperm = paired_order
    found = {k: v for name in STAGES for k, v in updated(name, rank, processes()).items()}
    torch.randperm = order
    agent = agent_for(Hill(), 0, hidden=(16,))
    history = train(Hill(), agent, [TRPO(steps=8000), PPO(steps=8000)], seed=3, n_envs=200)
    found |= {f"trained.{k}": v for k, v in agent.tensors().items()}
    found["history"] = torch.tensor(history[["steps", "return"]].to_numpy().T.copy())
    with pytest.raises(DataError, match="cannot be shared by 2"):
        train(Hill(), agent, [PPO()], seed=3, n_envs=201)
    found |= {f"resumed.{k}": v for k, v in resumed(out / "checkpoint.safetensors").items()}
    save_file(found, out / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    both = [subprocess.Popen(command, env=os.environ | where | {"RANK": str(rank)}) for rank in range(2)]
    monkeypatch.setattr(torch, "randperm", paired_order)
    alone = {k: v for name in STAGES for k, v in updated(name, 0, 1).items()}
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)  # to the bit
    trained = {name: tensor for name, tensor in first.items() if name.startswith("trained.")}
    assert all(
        torch.equal(first[name.replace("trained", "resumed")], tensor) for name, tensor in trained.items()
    )
    before = new_agent().tensors()
    for name, tensor in alone.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-7, atol=1e-7)
    for stage in STAGES:
        assert not torch.allclose(
            alone[f"{stage}.policy.network.0.weight"], before["policy.network.0.weight"], atol=1e-3
        )
    steps, returns = first["history"]
    assert steps.tolist() == [800.0 * (i + 1) for i in range(20)] and returns[-1] > returns[0] + 1


if __name__ == "__main__":
    work(Path(sys.argv[1]))
