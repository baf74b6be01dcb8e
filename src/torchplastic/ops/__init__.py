"""Run plasticity rules through time: functions of tensors, without modules or parameters."""
