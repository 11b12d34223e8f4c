import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import * as CommandLine from "../src/CommandLine.ts"
import { run, simulated } from "./support/Oa.ts"

const parsed = (argv: ReadonlyArray<string>, stdin: "terminal" | "pipe" = "terminal") => {
  const plan = CommandLine.plan(argv, stdin)
  return plan._tag === "Run" ? plan.args : plan._tag
}

describe("plan", () => {
  it("puts the command first, wherever the flags stand", () => {
    assert.deepStrictEqual(parsed(["two words"]), ["ask", "two words"])
    assert.deepStrictEqual(parsed(["-m", "ask", "two words"]), ["ask", "-m", "ask", "two words"])
    assert.deepStrictEqual(parsed(["--json", "ask", "hi"]), ["ask", "--json", "hi"])
    assert.deepStrictEqual(parsed(["-qm", "ask", "ask", "hi"]), ["ask", "-qm", "ask", "hi"])
    assert.deepStrictEqual(parsed(["why", "is", "the", "sky", "blue"]), [
      "ask",
      "why",
      "is",
      "the",
      "sky",
      "blue"
    ])
    assert.deepStrictEqual(parsed(["為什麼天空是藍色的"]), ["ask", "為什麼天空是藍色的"])
    assert.deepStrictEqual(parsed(["--json", "explain", "hi"]), ["explain", "--json", "hi"])
    assert.deepStrictEqual(parsed(["--id", "ask", "explain"]), ["explain", "--id", "ask"])
    assert.deepStrictEqual(parsed(["explain the sky"]), ["ask", "explain the sky"])
    assert.deepStrictEqual(parsed(["--", "batch"]), ["ask", "--", "batch"])
  })

  it("without arguments shows help on a terminal and reads a pipe", () => {
    assert.deepStrictEqual(parsed([]), ["--help"])
    assert.deepStrictEqual(parsed([], "pipe"), ["ask"])
    assert.deepStrictEqual(parsed(["--json"], "pipe"), ["ask", "--json"])
    assert.deepStrictEqual(parsed(["-V"]), ["--version"])
  })

  it("a single bare word is a prompt only beside text on stdin", () => {
    assert.strictEqual(parsed(["summarise"]), "Reject")
    assert.deepStrictEqual(CommandLine.plan(["summarise"], "pipe"), {
      _tag: "Run",
      args: ["ask", "summarise"],
      bareWord: "summarise"
    })
    assert.strictEqual(parsed(["summarise", "--no-stdin"], "pipe"), "Reject")
  })

  it("no bare word alone is ever run as a prompt", () => {
    const word = fc.stringMatching(/^[A-Za-z][A-Za-z0-9_-]{0,11}$/u)
    const flags = fc.subarray(["--json", "-q", "--no-color", "-m=x", "--temperature=1"])
    fc.assert(
      fc.property(word, flags, flags, (name, before, after) => {
        fc.pre(name !== "ask" && name !== "explain" && name !== "help")
        assert.strictEqual(CommandLine.plan([...before, name, ...after], "terminal")._tag, "Reject")
        const piped = CommandLine.plan([...before, name, ...after], "pipe")
        assert.isTrue(piped._tag === "Reject" || (piped._tag === "Run" && piped.bareWord === name))
      })
    )
  })
})

describe("distance", () => {
  it("counts a swap of neighbours as one step", () => {
    assert.strictEqual(CommandLine.distance("aks", "ask"), 1)
    assert.strictEqual(CommandLine.distance("ask", "ask"), 0)
    assert.strictEqual(CommandLine.distance("", "ask"), 3)
  })

  it("is symmetric and zero only for equal words", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), (left, right) => {
        assert.strictEqual(CommandLine.distance(left, right), CommandLine.distance(right, left))
        assert.strictEqual(CommandLine.distance(left, right) === 0, left === right)
      })
    )
  })
})

describe("commands", () => {
  it.live("a mistyped command is an error, not a paid prompt", () =>
    Effect.gen(function* () {
      const { oa, simulator } = yield* simulated()
      for (const args of [
        ["batc"],
        ["lgos"],
        ["aks"],
        ["batch"],
        ["batch", "run", "x.jsonl"],
        ["askk", "why", "not"],
        ["Explain", "the", "sky"]
      ]) {
        const ended = yield* oa(args)
        assert.strictEqual(ended.code, 2, args.join(" "))
        assert.strictEqual(ended.stdout, "")
        assert.match(ended.stderr, /is not a command.*\n {2}fix: .*oa ask "/u)
      }
      assert.match((yield* oa(["aks"])).stderr, /did you mean "oa ask"/u)
      // The word waits for text on stdin: none comes, so it is no prompt.
      assert.strictEqual((yield* oa(["summarise"], { stdin: "" })).code, 2)
      assert.strictEqual((yield* oa(["batc"], { stdin: "rows" })).code, 2)
      assert.strictEqual((yield* simulator.journal.entries).length, 0)
      assert.strictEqual((yield* oa(["ask", "batch"])).code, 0)
      assert.strictEqual((yield* oa(["--", "-x"])).code, 0)
    })
  )

  it.live("help is free, fast to find, and leads with examples", () =>
    Effect.gen(function* () {
      const page = yield* run(["--help"])
      assert.strictEqual(page.code, 0)
      assert.strictEqual(page.stderr, "")
      assert.match(page.stdout, /^[^\n]+\n\nExamples\n {2}oa "why is the sky blue"\n/u)
      for (const word of ["OPENAI_API_KEY", "LLM_RETRY_TIMES", "LLM_TIMEOUT_IDLE", "Exit codes", "130"]) {
        assert.include(page.stdout, word)
      }
      assert.deepStrictEqual(yield* run(["help"]), page)
      assert.deepStrictEqual(yield* run(["-h"]), page)
      assert.deepStrictEqual(yield* run(["help", "ask"]), yield* run(["ask", "--help"]))
      assert.match((yield* run(["help", "exit-codes"])).stdout, /^Exit codes\n {2}0/u)
      assert.match((yield* run(["help", "settings"])).stdout, /OPENAI_PROJECT_ID/u)
      const wrong = yield* run(["help", "exitcodes"])
      assert.strictEqual(wrong.code, 2)
      assert.match(wrong.stderr, /did you mean "oa help exit-codes"/u)
      assert.match((yield* run(["--version"])).stdout, /^oa \d+\.\d+\.\d+\n$/u)
      assert.strictEqual((yield* run(["-V"])).stdout, (yield* run(["--version"])).stdout)
    })
  )

  it.live("the flags that take a value are those of the parser", () =>
    Effect.gen(function* () {
      const flagsOf = (command: string) =>
        Effect.map(run([command, "--help"]), ({ stdout }) =>
          [...stdout.matchAll(/^ {2}((?:-\w, )?--[\w-]+) </gmu)].flatMap(([, names = ""]) =>
            names.split(", ")
          )
        )
      const flags = new Set((yield* Effect.forEach(["ask", "explain", "simulate"], flagsOf)).flat())
      assert.deepStrictEqual([...flags].toSorted(), [...CommandLine.valueFlags].toSorted())
    })
  )
})
