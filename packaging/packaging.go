// Package packaging holds what a host needs besides the programs: the systemd
// unit, its user and the kernel modules.
package packaging
