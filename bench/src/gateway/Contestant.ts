/** The gateways that are measured: how each is started in front of an upstream, and what its callers send. */
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Child from "../Child.ts"
import * as FreePort from "../FreePort.ts"
import * as Load from "../Load.ts"
import * as Admin from "./Admin.ts"
import * as LiteLlm from "./LiteLlm.ts"

/** Where a contestant runs. */
interface Place {
  /** The upstream's origin. */
  readonly upstream: string
  readonly port: number
  readonly adminPort: number
  /** A working directory of its own. */
  readonly folder: string
}

export interface Contestant {
  readonly name: string
  readonly title: string
  readonly file: URL
  readonly native?: boolean
  /** Gives the reason why it cannot be there. */
  readonly install?: () => Promise<string | undefined>
  readonly start: (
    place: Place
  ) =>
    | Promise<Pick<Child.Options, "arguments" | "environment">>
    | Pick<Child.Options, "arguments" | "environment">
  readonly headers?: (place: Place) => Readonly<Record<string, string>>
  /** The API key of the next call, where it is known before the start. */
  readonly nextKey?: () => string
  /** Once it answers: makes the key that the load is to send. */
  readonly admit?: (place: Place) => Promise<string>
  /** The share of the one-shot calls that it is asked: less than 1 for one that would hold the others up. */
  readonly share?: number
  /** A peer that fails streams is noted and measured without them; our own failure ends the run. */
  readonly peer: boolean
}

export const llmFile = new URL("../../../apps/api/dist/main.js", import.meta.url)

/** How our gateway is told where it stands; everything else is its default: breaker, retries, SQLite, metrics. */
export const llmEnvironment = ({ adminPort, folder, port, upstream }: Place) => ({
  LLM_HOST: "127.0.0.1",
  LLM_PORT: String(port),
  LLM_DATA: join(folder, "data"),
  LLM_ADMIN_TOKEN: Admin.token,
  LLM_ADMIN_PORT: String(adminPort),
  LLM_PROVIDER: "openai",
  OPENAI_BASE_URL: `${upstream}/v1`,
  OPENAI_API_KEY: "sk-bench"
})

/** To add a contestant, add an entry. */
export const all: ReadonlyArray<Contestant> = [
  {
    name: "bare",
    title: "bare proxy",
    file: new URL("../children/bare.ts", import.meta.url),
    start: ({ port, upstream }) => ({ environment: { UPSTREAM: upstream, PORT: String(port) } }),
    peer: false
  },
  {
    name: "llm",
    title: "llm gateway",
    file: llmFile,
    start: (place) => ({ environment: llmEnvironment(place) }),
    admit: ({ adminPort }) => Admin.makeKey(adminPort),
    peer: false
  },
  {
    name: "llm-plain",
    title: "llm without keys",
    file: llmFile,
    start: (place) => ({ environment: llmEnvironment(place) }),
    peer: false
  },
  {
    name: "portkey",
    title: "Portkey",
    file: new URL(import.meta.resolve("@portkey-ai/gateway/build/start-server.js")),
    // Headless and in production, which is its leanest way to run; it has no option for the host that it binds.
    start: ({ port }) => ({ arguments: ["--headless", `--port=${port}`] }),
    headers: ({ upstream }) => ({
      "x-portkey-provider": "openai",
      "x-portkey-custom-host": `${upstream}/v1`
    }),
    peer: true
  },
  {
    name: "litellm",
    title: "LiteLLM",
    file: LiteLlm.file,
    native: true,
    install: LiteLlm.install,
    nextKey: () => LiteLlm.masterKey,
    share: 0.1,
    start: async ({ folder, port, upstream }) => {
      const config = await LiteLlm.configure(folder, upstream)
      return {
        arguments: ["--config", config, "--host", "127.0.0.1", "--port", String(port), "--num_workers", "1"],
        // Its price list comes with it; without this it fetches one at the start.
        environment: {
          HOME: folder,
          LITELLM_LOCAL_MODEL_COST_MAP: "True",
          LITELLM_LOG: "ERROR",
          // Our streams say the same again and again, which it takes for a model gone mad.
          REPEATED_STREAMING_CHUNK_LIMIT: "1000000"
        }
      }
    },
    peer: true
  }
]

/** The reason why a contestant cannot be started, where there is one. */
export const absence = async ({ file, install }: Contestant): Promise<string | undefined> => {
  if (install !== undefined) return install()
  return existsSync(fileURLToPath(file)) ? undefined : "it is not built"
}

/** A folder that is removed with what uses it. */
export const folder = async () => {
  const path = await mkdtemp(join(tmpdir(), "bench-gateway-"))
  await mkdir(join(path, "data"))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

export interface Running extends AsyncDisposable {
  readonly name: string
  readonly share: number
  readonly child: Child.Child
  readonly target: Load.Target
  /** Why it cannot stream, when it cannot. */
  readonly streamFault: string | undefined
}

/** Starts it in a folder of its own, and waits until it answers. */
export const start = async (contestant: Contestant, upstream: string): Promise<Running> => {
  await using stack = new AsyncDisposableStack()
  const { path } = stack.use(await folder())
  const place = { upstream, port: await FreePort.find(), adminPort: await FreePort.find(), folder: path }
  const child = stack.use(
    Child.start({
      name: contestant.title,
      file: contestant.file,
      native: contestant.native ?? false,
      folder: path,
      ...(await contestant.start(place))
    })
  )
  const open: Load.Target = {
    name: contestant.title,
    origin: `http://127.0.0.1:${place.port}`,
    headers: contestant.headers?.(place) ?? {},
    ...(contestant.nextKey === undefined ? {} : { nextKey: contestant.nextKey })
  }
  await Promise.race([Load.ready(open), child.ended])
  const key = await contestant.admit?.(place)
  const target = key === undefined ? open : { ...open, nextKey: () => key }
  const streamFault = await Load.streams(target, 1, 1, 150).then(
    () => undefined,
    (fault: Error) => fault.message
  )
  if (streamFault !== undefined && !contestant.peer) throw new Error(streamFault)
  const owned = stack.move()
  return {
    name: contestant.name,
    share: contestant.share ?? 1,
    child,
    target,
    streamFault,
    [Symbol.asyncDispose]: () => owned.disposeAsync()
  }
}
