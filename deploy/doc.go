// Package deploy holds no program: its tests read what operators get, the compose
// files, the Dockerfile, the units of systemd and their examples, as docker compose
// and systemd would, and hold them against the settings of the programs.
package deploy
