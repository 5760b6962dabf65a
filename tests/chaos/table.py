"""Every fault by its name, in the order of the table."""

from __future__ import annotations

from tests.chaos import (
    faults_data,
    faults_kafka,
    faults_log,
    faults_network,
    faults_redis,
    faults_replay,
    faults_worker,
)
from tests.chaos.run import Fault

__all__ = ["FAULTS"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for faults in (
        faults_worker,
        faults_kafka,
        faults_log,
        faults_redis,
        faults_network,
        faults_data,
        faults_replay,
    )
    for fault in faults.FAULTS
}
