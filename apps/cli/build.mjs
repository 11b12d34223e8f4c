// Bundles the terminal client: `dist/oa.js` and the parts that it loads when they are needed.
import { build } from "esbuild"
import { chmod, mkdir, readdir, readFile, rm } from "node:fs/promises"
import { fileURLToPath } from "node:url"

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const { version } = JSON.parse(await readFile(here("package.json"), "utf8"))
const outdir = here("dist")

// Parts carry a hash in their names: those of an earlier build would stay for ever.
await mkdir(outdir, { recursive: true })
for (const name of await readdir(outdir)) {
  if (/^(?:oa|simulation|part-.*)\.(?:js|js\.LEGAL\.txt)$/u.test(name)) await rm(here(`dist/${name}`))
}

/** The simulator is a bundle of its own: see `src/Simulation.ts`. */
const simulationApart = {
  name: "simulation-apart",
  setup: (plugin) =>
    plugin.onResolve({ filter: /\/Simulation\.ts$/ }, ({ kind }) =>
      kind === "entry-point" ? undefined : { path: "./simulation.js", external: true }
    )
}

/** The simulator asks for its encodings by a `require` of its own, which would look for them beside the bundle. */
const encodingsInside = {
  name: "encodings-inside",
  setup: (plugin) =>
    plugin.onLoad({ filter: /simulator\/(src|dist)\/internal\/Tokens\.[jt]s$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(
        /^const require = createRequire\(import\.meta\.url\);?$/m,
        ""
      ),
      loader: path.endsWith(".ts") ? "ts" : "js"
    }))
}

const options = {
  absWorkingDir: here("."),
  outdir,
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node22.19",
  minify: true,
  legalComments: "linked",
  metafile: true,
  define: { OA_VERSION: JSON.stringify(version) },
  // CommonJS inside the bundle asks for Node's own modules by `require`.
  banner: {
    js: 'import { createRequire as oaCreateRequire } from "node:module"; const require = oaCreateRequire(import.meta.url);'
  },
  logLevel: "warning"
}

const results = await Promise.all([
  build({
    ...options,
    entryPoints: ["src/oa.ts"],
    splitting: true,
    chunkNames: "part-[name]-[hash]",
    plugins: [simulationApart]
  }),
  build({ ...options, entryPoints: { simulation: "src/Simulation.ts" }, plugins: [encodingsInside] })
])
await chmod(here("dist/oa.js"), 0o755)

if (process.argv.includes("--sizes")) {
  for (const { metafile } of results) {
    for (const [name, { bytes }] of Object.entries(metafile.outputs)) console.log(`${bytes}\t${name}`)
  }
}
