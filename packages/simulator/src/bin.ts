/** Runs the simulator on its own: `node src/bin.ts --port 9099`. Ctrl-C stops it. */
import { Console, Effect } from "effect"
import { parseArgs } from "node:util"
import * as Simulator from "./Simulator.ts"

const { values } = parseArgs({
  options: { host: { type: "string", default: "127.0.0.1" }, port: { type: "string", default: "9099" } }
})

const program = Effect.gen(function* () {
  const simulator = yield* Simulator.make({ host: values.host, port: Number(values.port) })
  yield* Console.log(simulator.url)
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.catchTags({
    PortTaken: (error) => failed(error.message),
    ListenFailed: (error) => failed(error.message)
  })
)

const failed = (message: string) =>
  Effect.andThen(
    Console.error(message),
    Effect.sync(() => {
      process.exitCode = 1
    })
  )

const fiber = Effect.runFork(program)
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => fiber.interruptUnsafe())
}
