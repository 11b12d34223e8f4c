import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { existsSync, openSync } from "node:fs"
import { pointedAt, program, run, simulated } from "./support/Oa.ts"

/** From util-linux: gives a program a terminal to talk to. */
const pseudoTerminal = "script"

/** Runs a shell command with a pseudo-terminal as its stdin, stdout and stderr. */
const onTerminal = (command: string, env: Readonly<Record<string, string>>) =>
  Effect.callback<{ readonly code: number | null; readonly stdout: string }>((resume) => {
    const child = spawn(pseudoTerminal, ["-qec", command, "/dev/null"], {
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["ignore", "pipe", "inherit"]
    })
    let stdout = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
    child.on("close", (code) => resume(Effect.succeed({ code, stdout })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("streams and signals", () => {
  it.live("a silent, open stdin ends with an error instead of hanging, and nothing is sent", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      for (const args of [["two words"], ["ask"], ["summarise"]]) {
        const ended = yield* oa([...args, "--stdin-wait", "50ms"], { stdin: { open: true } })
        assert.strictEqual(ended.code, 2)
        assert.match(ended.stderr, /stdin is open but silent/u)
        assert.match(ended.stderr, /--no-stdin.*<\/dev\/null.* - /u)
      }
      assert.strictEqual((yield* simulator.journal.entries).length, 0)
      const skipped = yield* oa(["--no-stdin", "two words"], { stdin: { open: true } })
      assert.strictEqual(skipped.code, 0, skipped.stderr)
    })
  )

  it.live("input that came late is still read to its end", () =>
    Effect.gen(function* () {
      const { begin, simulator } = yield* simulated()
      const running = yield* begin(["summarise this"], { stdin: { open: true } })
      yield* running.shows("stderr", "waiting for stdin…")
      running.child.stdin.write("first half, ")
      running.child.stdin.end("second half")
      assert.strictEqual((yield* running.ended).code, 0)
      const [entry] = yield* simulator.journal.entries
      assert.deepInclude(entry?.body, {
        messages: [{ role: "user", content: "summarise this\n\nfirst half, second half" }]
      })
    })
  )

  it.live("Ctrl-C keeps what came, says so, exits 130 and cancels the call", () =>
    Effect.gen(function* () {
      const { begin, simulator } = yield* simulated()
      const running = yield* begin(["-m", "gpt-6-luna+fault=stall:4", "two words"])
      const entry = yield* simulator.journal.awaitEntry(({ contentEventsSent }) => contentEventsSent === 4)
      yield* running.shows("stdout", /\w/u)
      running.child.kill("SIGINT")
      const ended = yield* running.ended
      assert.strictEqual(ended.code, 130)
      assert.match(ended.stdout, /\w.*\n$/su)
      assert.match(ended.stderr, /^■ stopped after \d tokens?; the answer is incomplete\n$/u)
      const closed = yield* simulator.journal.awaitEntry(
        ({ open, sequence }) => sequence === entry.sequence && !open
      )
      assert.strictEqual(closed.outcome, "client-left")
    })
  )

  it.live("Ctrl-C before the answer, with --json, and SIGTERM", () =>
    Effect.gen(function* () {
      const { begin, simulator } = yield* simulated()
      const running = yield* begin(["--json", "-m", "gpt-6-luna+fault=no-headers", "two words"])
      yield* simulator.journal.awaitEntry(({ open }) => open)
      running.child.kill("SIGINT")
      const ended = yield* running.ended
      assert.strictEqual(ended.code, 130)
      assert.strictEqual(ended.stdout, "")
      assert.deepInclude(JSON.parse(ended.stderr).error, { tag: "Stopped", exit_code: 130 })
      const other = yield* begin(["-m", "gpt-6-luna+fault=no-headers", "two words"])
      yield* simulator.journal.awaitEntry(({ open }) => open)
      other.child.kill("SIGTERM")
      assert.strictEqual((yield* other.ended).code, 143)
    })
  )

  it.live("a reader that goes away ends the call without a word", () =>
    Effect.gen(function* () {
      const { begin, simulator } = yield* simulated({ latency: { betweenTokens: "5 millis" } })
      const running = yield* begin(["-m", "gpt-6-luna+tokens=100000", "two words"])
      yield* running.shows("stdout", /\w/u)
      running.child.stdout.destroy()
      const ended = yield* running.ended
      assert.strictEqual(ended.code, 0)
      assert.strictEqual(ended.stderr, "")
      assert.strictEqual((yield* simulator.journal.awaitEntry(({ open }) => !open)).outcome, "client-left")
    })
  )

  it.live("Ctrl-C ends it even if nobody reads what was written", () =>
    Effect.gen(function* () {
      const { begin, simulator } = yield* simulated()
      const running = yield* begin(["-m", "gpt-6-luna+tokens=200000", "two words"])
      running.child.stdout.pause()
      // More than a pipe holds has been sent, and the connection is held back.
      yield* simulator.journal.awaitEntry(({ bytesSent }) => bytesSent > 1_000_000)
      running.child.kill("SIGINT")
      yield* Effect.callback<void>((resume) => {
        running.child.once("exit", (code) => {
          assert.strictEqual(code, 130)
          resume(Effect.void)
        })
      })
    })
  )

  it.live("a disk that is full is a failure, not a shorter answer", (context) =>
    Effect.gen(function* () {
      if (!existsSync("/dev/full")) return context.skip("there is no /dev/full here")
      const { simulator } = yield* simulated()
      const full = openSync("/dev/full", "w")
      const ended = spawnSync(process.execPath, [program, "--simulate", "two words"], {
        env: pointedAt(simulator.url),
        stdio: ["ignore", full, "pipe"],
        encoding: "utf8"
      })
      assert.strictEqual(ended.status, 1)
      assert.match(ended.stderr, /^error: stdout cannot be written: ENOSPC/u)
    })
  )

  it.live("on a terminal: text as it is, then one receipt line", (context) =>
    Effect.gen(function* () {
      const { simulator } = yield* simulated()
      const found = spawnSync(pseudoTerminal, ["--version"], { encoding: "utf8" })
      if (!found.stdout?.includes("util-linux")) {
        const reason = "no `script` of util-linux here, so there is no pseudo-terminal to test on"
        assert.isUndefined(process.env["CI"], reason)
        return context.skip(reason)
      }
      const command = `'${process.execPath}' '${program}' 'why is the sky blue'`
      const plain = yield* run(["why is the sky blue"], { env: pointedAt(simulator.url) })
      const ended = yield* onTerminal(command, pointedAt(simulator.url, { TERM: "xterm" }))
      assert.strictEqual(ended.code, 0)
      const text = ended.stdout.replaceAll("\r\n", "\n")
      const [, afterStatus = ""] = text.split(plain.stdout)
      assert.match(afterStatus, /gpt-6-luna · \d+→\d+ tok · (?:< )?\$0\.\d{4} · [\d.]+ m?s/u)
      const bare = yield* onTerminal(command, pointedAt(simulator.url, { TERM: "xterm", NO_COLOR: "1" }))
      assert.notInclude(bare.stdout, "\u001B[2m")
    })
  )
})
