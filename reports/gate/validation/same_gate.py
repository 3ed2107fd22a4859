"""One gate, suite and model: what finds faults is all of it, so that their lines are of one.

Pairs and real runs are bound to a protocol instead (`lines.py`).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.git import git
from reference_model.errors import UserError
from reports.gate.validation import lines

# Of reports/gate: the validation itself, how a report looks, and what finds nothing.
NOT_ASKED = {
    *("campaign", "campaign.py"),  # what older commits call the validation, and what is left of it
    *("validation", "output.py", "page.py", "page.html.j2", "README.md"),
    *("simulate.py", "environments.py", "plan.py", "protocol.py"),
}
ASKED = ("benchmarks", "reference_model", "requirements.txt", "requirements-torch.txt")


def check_gate(path: Path, repository: Path) -> None:
    """`UserError` where a record of the file is of another gate, suite or model than HEAD's."""
    today = gate_of(repository, "HEAD")
    for commit in dict.fromkeys(record.get("commit", "") for record in lines.read(path)):
        if gate_of(repository, commit) != today:
            raise UserError(
                f"{path} holds records of another gate, suite or model than HEAD's, of commit "
                f"{commit[:12]}; go on at that commit, or begin a new file with --lines"
            )


def gate_of(repository: Path, commit: str) -> str:
    """git's names for all that can find a fault in a commit."""
    listed = git(repository, "ls-tree", "--full-tree", commit, "--", *ASKED)
    gate = git(repository, "ls-tree", "--full-tree", commit, "--", "reports/gate/").splitlines()
    asked = (line for line in gate if line.rpartition("/")[2] not in NOT_ASKED)
    return "\n".join([listed, *asked])
