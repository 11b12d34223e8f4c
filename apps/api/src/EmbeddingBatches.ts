/**
 * Requests for embeddings that are sent together, as the sections `embeddings` have it: each has batches of its own.
 */
import * as Effect from "effect/Effect"
import { EmbeddingRelay } from "@llm/openai"
import type { ConfigFile } from "./ConfigFile.ts"
import * as Overrides from "./Overrides.ts"

/** Puts what the file asks for before `send`; `send` itself where it asks for nothing. */
export const over = Effect.fnUntraced(function* (
  { embeddings, overrides = [] }: ConfigFile,
  send: EmbeddingRelay.Send
) {
  const make = (section: ConfigFile["embeddings"]) =>
    section?.batch === undefined ? Effect.succeed(send) : EmbeddingRelay.make(section.batch, send)
  const usual = yield* make(embeddings)
  const others = yield* Effect.forEach(overrides, (override) =>
    Effect.map(
      override.embeddings === undefined ? Effect.succeed(usual) : make(override.embeddings),
      (value) => ({
        fits: Overrides.fits(override),
        value
      })
    )
  )
  if (usual === send && others.every(({ value }) => value === send)) return send
  const of = Overrides.choice(usual, others)
  const chosen: EmbeddingRelay.Send = (request) => of(request)(request)
  return chosen
})
