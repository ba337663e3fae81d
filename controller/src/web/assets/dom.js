// Turns descriptions of elements into elements, and changes only what differs: focus, selection and scrolling survive
// every refresh. Data becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Describes an element: h("td", {class: "num"}, "12"). Children may be nested lists; null and false are left out. */
export function h(tag, properties, ...children) {
  return { tag, properties: properties ?? {}, children: children.flat(Infinity).filter(isShown) };
}

const isShown = (child) => child !== null && child !== undefined && child !== false && child !== "";

/** Makes the children of an element what these descriptions say. */
export function render(parent, ...children) {
  reconcile(parent, children.flat(Infinity).filter(isShown));
}

function reconcile(parent, wanted) {
  const keys = new Set(wanted.map((child) => child.properties?.key));
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    if (node.fkKey === undefined) continue;
    // What is gone goes first: what stays is then in place, and is not moved, which would cost it its focus.
    if (keys.has(node.fkKey)) keyed.set(node.fkKey, node);
    else node.remove();
  }
  let at = parent.firstChild;
  for (const child of wanted) {
    const node = typeof child === "object" ? element(parent, child, at, keyed) : text(child, at);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function text(value, at) {
  const content = String(value);
  if (at?.nodeType !== Node.TEXT_NODE) return document.createTextNode(content);
  if (at.data !== content) at.data = content;
  return at;
}

function element(parent, child, at, keyed) {
  const { key } = child.properties;
  const known = key === undefined ? at : keyed.get(key);
  const fits = known?.nodeType === Node.ELEMENT_NODE && known.fkTag === child.tag && known.fkKey === key;
  const node = fits ? known : create(parent, child.tag, key);
  apply(node, child.properties);
  reconcile(node, child.children);
  return node;
}

function create(parent, tag, key) {
  const isSvg = tag === "svg" || parent.namespaceURI === SVG;
  const node = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  Object.assign(node, { fkTag: tag, fkKey: key, fkProperties: {} });
  return node;
}

function apply(node, properties) {
  const before = node.fkProperties;
  for (const name of Object.keys(before)) {
    if (!(name in properties)) set(node, name, null);
  }
  for (const [name, value] of Object.entries(properties)) {
    if (before[name] !== value) set(node, name, value);
  }
  node.fkProperties = properties;
}

function set(node, name, value) {
  if (name === "key") return;
  if (name.startsWith("on")) node[name] = value ?? null;
  else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}
