#!/bin/bash
# One run over several nodes: sbatch experiments/cluster/slurm.sh dmc:walker_walk --preset dmc_vision
#SBATCH --job-name=dreamer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

# JAX finds out from Slurm who the others are; all save when one of them is asked to end (exit code 75).
srun --kill-on-bad-exit=0 dreamer-agent train "$@" --run "${RUN:-runs/$SLURM_JOB_NAME}" --distributed auto
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
