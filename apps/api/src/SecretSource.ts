/**
 * Secrets are read from where the configuration says, and are never shown.
 */
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import type { Secret } from "./ConfigFile.ts"

/** There is nothing where the configuration says that a secret is. */
export class SecretMissing extends Data.TaggedError("SecretMissing")<{
  readonly field: string
  readonly source: string
}> {
  override get message(): string {
    return `${this.field}: ${this.source} holds nothing; set it, or name another place`
  }
}

/**
 * Reads a secret.
 *
 * @param field its place in the configuration, for the error
 */
export const read = (
  field: string,
  secret: Secret
): Effect.Effect<Redacted.Redacted, SecretMissing, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const source = "env" in secret ? `the variable ${secret.env}` : `the file ${secret.file}`
    const text =
      "env" in secret
        ? yield* Effect.orElseSucceed(Config.String(secret.env), () => "")
        : yield* Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString(secret.file)).pipe(
            Effect.orElseSucceed(() => "")
          )
    return text.trim() === ""
      ? yield* new SecretMissing({ field, source })
      : Redacted.make(text.trim(), { label: field })
  })
