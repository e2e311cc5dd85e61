// execs ECHO: processes that Go starts (vfork-like clone, from any thread), their signals and exit codes.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"conformance/say"
)

func echo(address, text string) string {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return say.Outcome(err)
	}
	defer connection.Close()
	io.WriteString(connection, text)
	got := make([]byte, len(text))
	_, err = io.ReadFull(connection, got)
	return fmt.Sprintf("%s %s", got, say.Outcome(err))
}

func exitCode(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return "killed by " + strconv.Itoa(int(status.Signal()))
		}
		return "exit " + strconv.Itoa(status.ExitStatus())
	}
	if errors.Is(err, os.ErrNotExist) {
		return "not found"
	}
	return say.Outcome(err)
}

func main() {
	say.Limit()
	address := os.Args[1]
	if len(os.Args) > 2 {
		code, _ := strconv.Atoi(os.Args[2])
		fmt.Printf("%s", echo(address, "child "+os.Args[2]))
		os.Exit(code)
	}
	var group sync.WaitGroup
	lines := make([]string, 20)
	for i := range lines {
		group.Add(1)
		go func() {
			defer group.Done()
			runtime.LockOSThread() // without an unlock: the thread ends with the goroutine
			output, err := exec.Command("/proc/self/exe", address, strconv.Itoa(i)).Output()
			lines[i] = fmt.Sprintf("%s: %s", output, exitCode(err))
		}()
	}
	group.Wait()
	for _, line := range lines {
		fmt.Println(line)
	}
	fmt.Println("nothing there:", exitCode(exec.Command("/nonexistent").Run()))
	fmt.Println("a shell:", exitCode(exec.Command("/bin/sh", "-c", "exit 42").Run()))
	fmt.Println("a shell that kills itself:", exitCode(exec.Command("/bin/sh", "-c", "kill -9 $$").Run()))

	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	busy := make(chan struct{})
	for range 2 { // goroutines that never call: the runtime interrupts them with SIGURG
		go func() {
			for n := 0; ; n++ {
				select {
				case <-busy:
					return
				default:
				}
			}
		}()
	}
	for i := range 30 {
		if got := echo(address, "x"); got != "x OK" {
			fmt.Println("echo", i, got)
		}
	}
	for _, each := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
		syscall.Kill(os.Getpid(), each)
		select {
		case got := <-signals:
			fmt.Println("signal:", got)
		case <-time.After(10 * time.Second):
			fmt.Println("signal lost:", each)
		}
	}
	close(busy)
	os.Exit(17)
}
