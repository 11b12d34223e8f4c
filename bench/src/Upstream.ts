/** The upstream's process, as the measurements see it. */
import * as Schema from "effect/Schema"
import * as Child from "./Child.ts"

export interface Upstream extends AsyncDisposable {
  readonly origin: string
  /** How many streams the upstream believes to be open. */
  readonly openStreams: () => Promise<number>
}

const decodePort = Schema.decodeUnknownSync(Schema.Struct({ port: Schema.Number }))
const decodeOpen = Schema.decodeUnknownSync(Schema.Struct({ open: Schema.Number }))

export const start = async (): Promise<Upstream> => {
  const child = Child.start({ name: "upstream", file: new URL("./children/upstream.ts", import.meta.url) })
  const { port } = decodePort(await Child.greeting(child))
  return {
    origin: `http://127.0.0.1:${port}`,
    openStreams: async () => decodeOpen(await child.ask("open streams")).open,
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]()
  }
}
