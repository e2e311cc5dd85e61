// Package say prints observations that do not depend on time or on ephemeral ports.
package say

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

var names = map[syscall.Errno]string{
	syscall.EACCES: "EACCES", syscall.ECONNREFUSED: "ECONNREFUSED", syscall.ECONNRESET: "ECONNRESET",
	syscall.EHOSTUNREACH: "EHOSTUNREACH", syscall.EINVAL: "EINVAL", syscall.ENETUNREACH: "ENETUNREACH",
	syscall.EPIPE: "EPIPE", syscall.ETIMEDOUT: "ETIMEDOUT",
}

// Outcome names what an error is: an errno's name, or which kind of failure.
func Outcome(err error) string {
	var errno syscall.Errno
	var lookup *net.DNSError
	switch {
	case err == nil:
		return "OK"
	case errors.As(err, &errno):
		if name, known := names[errno]; known {
			return name
		}
		return errno.Error()
	case errors.As(err, &lookup):
		if lookup.IsNotFound {
			return "no such host"
		}
		return "lookup failed: " + lookup.Err
	case errors.Is(err, context.Canceled):
		return "canceled"
	case os.IsTimeout(err):
		return "timeout"
	}
	return err.Error()
}

// Host is the address without its port.
func Host(address net.Addr) string {
	host, _, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	return host
}

// Need ends the program when what it cannot do without has failed.
func Need(what string, err error) {
	if err != nil {
		fmt.Printf("%s failed: %v\n", what, err)
		os.Exit(99)
	}
}

// Limit ends the program when it takes longer than any machine should need.
func Limit() {
	time.AfterFunc(90*time.Second, func() {
		fmt.Println("hangs")
		os.Exit(98)
	})
}
