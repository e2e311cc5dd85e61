// concurrent URL ECHO COUNT: as many connections at once as asked: HTTP requests that all wait for one another, then
// echoes that are all open together.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"conformance/say"
)

func main() {
	say.Limit()
	count, err := strconv.Atoi(os.Args[3])
	say.Need("count", err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var group sync.WaitGroup
	answers := make([]string, count)
	url := fmt.Sprintf("%s/barrier/%d/%d", os.Args[1], os.Getpid(), count)
	for i := range answers {
		group.Add(1)
		go func() {
			defer group.Done()
			response, err := client.Get(url)
			if err != nil {
				answers[i] = say.Outcome(err)
				return
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			answers[i] = strings.TrimSpace(string(body)) + " " + say.Outcome(err)
		}()
	}
	group.Wait()
	tell("requests", answers)

	open := make([]net.Conn, count)
	for i := range open {
		group.Add(1)
		go func() {
			defer group.Done()
			connection, err := net.Dial("tcp", os.Args[2])
			if err != nil {
				answers[i] = say.Outcome(err)
				return
			}
			open[i] = connection
		}()
	}
	group.Wait()
	for round := 1; round <= 3; round++ {
		for i, connection := range open {
			group.Add(1)
			go func() {
				defer group.Done()
				if connection == nil {
					return
				}
				line := fmt.Sprintf("connection %d round %d\n", i, round)
				if _, err := io.WriteString(connection, line); err != nil {
					answers[i] = say.Outcome(err)
					return
				}
				got := make([]byte, len(line))
				_, err := io.ReadFull(connection, got)
				answers[i] = fmt.Sprintf("own line back: %t %s", string(got) == line, say.Outcome(err))
			}()
		}
		group.Wait()
		tell(fmt.Sprintf("echoes, round %d", round), answers)
	}
	for i, connection := range open {
		if connection == nil {
			continue
		}
		connection.(*net.TCPConn).CloseWrite()
		line, err := bufio.NewReader(connection).ReadString('\n')
		answers[i] = "ended " + say.Outcome(err)
		_ = line // its digits differ with the connection's number
		connection.Close()
	}
	tell("ends", answers)
}

// tell prints each different answer with how many got it.
func tell(what string, answers []string) {
	counts := map[string]int{}
	for _, answer := range answers {
		counts[answer]++
	}
	for answer, count := range counts {
		fmt.Printf("%s: %d x %s\n", what, count, answer)
	}
}
