// Package daemon is what the programs of this project share: a main function
// that knows signals and exit codes, tasks that start together and stop in
// reverse order, the admin server, the logger, and the connection to NATS.
//
// In the order of a program's life: [Main] calls the program's run function;
// that makes a logger ([NewLogger]), a [NATS] connection and whatever else, and
// gives it all as [Task]s to a [Group]; [Admin] shows the group's readiness.
package daemon
