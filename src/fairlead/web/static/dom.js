// Makes elements. All text becomes text nodes: names, categories and descriptions are not trusted, and
// the page's policy (require-trusted-types-for 'script') makes the browser refuse innerHTML altogether.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

export const byId = (id) => document.getElementById(id);

// A category may be the empty string, which nobody would see.
export const wordOf = (value) => String(value) || '""';

export function show(node, visible) {
  node.hidden = !visible;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A button that copies what `text()` gives. Without HTTPS there is no navigator.clipboard.
export function copyButton(pre) {
  const button = el("button", { type: "button", class: "copy", onclick: copy }, "Copy");
  async function copy() {
    let copied = true;
    try {
      await navigator.clipboard.writeText(pre.textContent);
    } catch {
      getSelection().selectAllChildren(pre);
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
  return button;
}
