/**
 * What keeps the gateway from starting, in one line that says what to do.
 */
import * as Cause from "effect/Cause"
import type { ConfigError } from "effect/Config"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Runtime from "effect/Runtime"
import type { ServeError } from "effect/http/HttpServerError"
import type { PlatformError } from "effect/PlatformError"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidSetting, type LedgerStore, Redaction, Settings } from "@llm/core"
import type { Simulator } from "@llm/simulator"
import type { ConfigFileInvalid } from "./ConfigFile.ts"
import type { ConfigFileUnreadable } from "./Configuration.ts"
import type { KeysUnavailable } from "./KeyStore.ts"
import type { SecretMissing } from "./SecretSource.ts"
import type { CertificateInvalid } from "./Tls.ts"

/** A flag that does not exist, or one without its value. */
export class UsageError extends Data.TaggedError("UsageError")<{ readonly cause: unknown }> {}

/** Said already; carries the exit code: 2 for settings, 1 for everything else. */
class Reported extends Data.TaggedError("Reported")<{ readonly code: number }> {
  override get [Runtime.errorExitCode](): number {
    return this.code
  }
}

type StartError =
  | UsageError
  | ConfigError
  | InvalidSetting.InvalidSetting
  | ServeError
  | Simulator.SimulatorError
  | ConfigFileInvalid
  | ConfigFileUnreadable
  | SecretMissing
  | CertificateInvalid
  | KeysUnavailable
  | LedgerStore.LedgerFailed
  | SqlError
  | PlatformError

const detailOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const taken = (detail: string): string => {
  const address = /EADDRINUSE.*?(\S+)$/u.exec(detail)?.[1]
  return address === undefined
    ? `cannot listen: ${detail}`
    : `${address} is taken: stop what listens there, or choose another port with --port or LLM_PORT`
}

const explain = (error: StartError): readonly [line: string, code: number] => {
  switch (error._tag) {
    case "UsageError":
      return [`${(detailOf(error.cause).split("\n")[0] ?? "").replace(/\.?$/u, ".")} See --help.`, 2]
    case "InvalidSetting":
    case "ConfigFileInvalid":
    case "ConfigFileUnreadable":
    case "SecretMissing":
    case "CertificateInvalid":
      return [error.message, 2]
    case "ConfigError":
      return [Settings.explain(error), 2]
    case "ServeError":
      return [taken(detailOf(error.cause)), 1]
    default:
      return [error.message, 1]
  }
}

/** Prints the line on stderr and ends with the exit code. */
export const report = <A>(program: Effect.Effect<A, StartError>): Effect.Effect<A, Reported> =>
  Effect.catchCause(program, (cause) => {
    if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
    const failure = Cause.findErrorOption(cause)
    const [line, code] =
      failure._tag === "Some" ? explain(failure.value) : [`unexpected: ${detailOf(Cause.squash(cause))}`, 1]
    return Effect.andThen(
      Console.error(`llm-gateway: ${Redaction.redact(line)}`),
      Effect.fail(new Reported({ code }))
    )
  })
