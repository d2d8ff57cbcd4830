"""Many runs started and looked after: as processes of this machine, jobs of Slurm, or trials of Ray Tune."""
