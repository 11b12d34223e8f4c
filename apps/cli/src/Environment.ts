/**
 * What the parser asks of the platform, without the platform.
 *
 * Only file flags, prompts and wizards touch these services, and a command that has such brings the
 * real ones (`NodeServices`) along; loading them for every run would cost a fifth of the start.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Stdio from "effect/Stdio"
import * as Terminal from "effect/Terminal"
import type * as Command from "effect/cli/Command"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"

const missing = Effect.die(new Error("this command needs NodeServices"))

/** Inert services; using one is a defect. */
export const layer: Layer.Layer<Command.Environment> = Layer.mergeAll(
  FileSystem.layerNoop({}),
  Path.layer,
  Stdio.layerTest({}),
  Layer.succeed(
    Terminal.Terminal,
    Terminal.make({
      columns: Effect.succeed(80),
      rows: Effect.succeed(24),
      size: missing,
      readInput: missing,
      readLine: missing,
      display: () => missing
    })
  ),
  Layer.succeed(
    ChildProcessSpawner.ChildProcessSpawner,
    ChildProcessSpawner.make(() => missing)
  )
)
