#!/bin/sh
# An array of 64 tasks, 16 at a time: sbatch bulk-slurm.sh. Submitted again, it does what is left.
#SBATCH --job-name=fastrank-bulk
#SBATCH --array=0-63%16
#SBATCH --cpus-per-task=8
#SBATCH --mem=2G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
export FASTRANK_OFFLINE=1 FASTRANK_PROGRESS=1 FASTRANK_THREADS="$SLURM_CPUS_PER_TASK"
# exec: the signal, five minutes before the time is over, must reach fastrank, which ends after the file in hand.
exec fastrank embed "$HOME"/corpus/*.parquet -o "$HOME/vectors/" --keep id --rows-per-file 10000 \
    --on-error null --error-column error --shard "$SLURM_ARRAY_TASK_ID/64"
