"""The alliance's hub: studies, permits and runs. It sees sums, never a row; it cannot even import what reads one."""
