"""Lines about faults are of one gate, suite and model, since all of it finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_model.errors import UserError
from reports.gate.validation import lines
from reports.gate.validation.same_gate import check_gate


def test_records_of_another_gate_suite_or_model_are_not_gone_on_with(
    repository, tmp_path: Path
) -> None:
    path = tmp_path / "lines.jsonl"
    check_gate(path, repository.path)
    of_fault = {"kind": "change", "judge": "gate", "group": "speed", "name": "x", "edits": "y"}
    commit = repository.git("rev-parse", "HEAD")
    lines.append(path, {**of_fault, "exit_status": 10, "seconds": 1.0, "commit": commit})
    for free in ("campaign/curves.py", "campaign.py", "validation/curves.py", "output.py"):
        repository.write(f"reports/gate/{free}", "")
    repository.commit()
    check_gate(path, repository.path)
    repository.commit(model="BYTES = 1\n")
    with pytest.raises(UserError, match=f"than HEAD's, of commit {commit[:12]}; go on at that"):
        check_gate(path, repository.path)
