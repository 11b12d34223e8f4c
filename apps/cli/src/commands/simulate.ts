/**
 * `oa simulate`: the simulator on a port, until Ctrl-C.
 *
 * Only the flags are here; the simulator is loaded once they are parsed, so that `--help` stays fast.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { StartFailed } from "../Failure.ts"
import * as Screen from "../Screen.ts"

const onOff = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withoutNegation, Flag.withDefault(false))

const whole = (name: string, maximum: number) =>
  Flag.Int(name).pipe(Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))))

const parameters = {
  host: Flag.String("host").pipe(
    Flag.withDescription("Where to listen (127.0.0.1)"),
    Flag.withDefault("127.0.0.1")
  ),
  port: whole("port", 65_535).pipe(
    Flag.withDescription("Port to listen on (9099); 0 takes a free one"),
    Flag.withDefault(9099)
  ),
  script: Flag.String("script").pipe(
    Flag.withMetavar("file"),
    Flag.withDescription("Fixtures and faults, YAML or JSON"),
    Flag.optional
  ),
  seed: whole("seed", 4_294_967_295).pipe(
    Flag.withDescription("Decides the replies (0)"),
    Flag.withDefault(0)
  ),
  strict: onOff("strict", "Refuse requests that no fixture matches"),
  permissive: onOff("permissive", "Do not hold requests to the API's rules"),
  control: onOff("control", "Serve /__simulator/: journal, faults and scripts, and a page that lists them"),
  record: Flag.String("record").pipe(
    Flag.withMetavar("url"),
    Flag.withDescription("Pass on what no fixture matches, and write it to the script's file at the end"),
    Flag.optional
  )
}

/** The command. */
export const simulate = Command.make(
  "simulate",
  parameters,
  Effect.fnUntraced(function* (input) {
    const Simulation = yield* Effect.promise(() => import("../Simulation.ts"))
    const screen = yield* Screen.Screen
    const { url } = yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: () =>
          Simulation.serve({
            ...input,
            script: Option.getOrUndefined(input.script),
            record: Option.getOrUndefined(input.record)
          }),
        catch: (error) => new StartFailed({ message: error instanceof Error ? error.message : String(error) })
      }),
      (simulation) => Effect.promise(simulation.close)
    )
    yield* screen.answer(`${url}\n`)
    return yield* Effect.never
  }, Effect.scoped)
).pipe(
  Command.withDescription("Serve a simulated OpenAI, which can be told to misbehave, until Ctrl-C."),
  Command.withExamples([
    { command: "oa simulate --port 9000 --script faults.yaml" },
    { command: "oa simulate --control", description: "live journal at /__simulator/" }
  ])
)
