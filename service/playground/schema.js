// A strategy's JSON schema as plain facts: what kind of value stands where, and what it is when nobody says.

/** A node with its $ref followed and its null taken out. */
export function resolved(schema, node) {
  const target = node.$ref ? { ...schema.$defs[node.$ref.split("/").pop()], ...without(node, "$ref") } : node;
  if (!target.anyOf) return target;
  const choices = target.anyOf.map((choice) => resolved(schema, choice));
  const values = choices.filter((choice) => choice.type !== "null");
  const nullable = values.length < choices.length;
  const kind = values.length === 1 ? values[0] : { type: "string" }; // a number or words: written as words
  return { ...kind, ...without(target, "anyOf"), nullable };
}

function without(node, key) {
  return Object.fromEntries(Object.entries(node).filter(([name]) => name !== key));
}

/** What `value` says that `normal` does not; undefined where they are equal. */
export function difference(value, normal) {
  if (isObject(value) && isObject(normal)) {
    const changed = Object.entries(value)
      .map(([name, one]) => [name, difference(one, normal[name])])
      .filter(([, one]) => one !== undefined);
    return changed.length ? Object.fromEntries(changed) : undefined;
  }
  return JSON.stringify(value) === JSON.stringify(normal) ? undefined : value;
}

export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The values of `above` over those of `below`, object by object. */
export function overlaid(below, above) {
  const merged = { ...below };
  for (const [name, value] of Object.entries(above || {})) {
    merged[name] = isObject(value) && isObject(merged[name]) ? overlaid(merged[name], value) : value;
  }
  return merged;
}

/** Names that every strategy takes: sampling and outputs, not the method. */
export function commonNames(strategies) {
  const [first, ...rest] = strategies.map((one) => Object.keys(one.params.properties));
  return new Set(first.filter((name) => rest.every((names) => names.includes(name))));
}

/** Every value of a strategy when the request names a preset and nothing else. */
export function defaultsOf(strategy, preset) {
  const plain = Object.fromEntries(
    Object.entries(strategy.params.properties).map(([name, node]) => [name, initial(strategy.params, node)]),
  );
  return { ...overlaid(plain, strategy.presets[preset] || {}), preset };
}

function initial(schema, node) {
  if ("default" in node) return node.default;
  const full = resolved(schema, node);
  if (full.properties) {
    return Object.fromEntries(Object.entries(full.properties).map(([name, one]) => [name, initial(schema, one)]));
  }
  return { array: [], object: {}, boolean: false, string: "" }[full.type] ?? null;
}
