"use strict";
for (const network of document.querySelectorAll(".network")) {
  const panel = network.querySelector(".panel");
  const show = (block) => {
    network.querySelector(".chosen")?.classList.remove("chosen");
    block.classList.add("chosen");
    panel.replaceChildren(...block.querySelector(".detail").cloneNode(true).childNodes);
  };
  for (const block of network.querySelectorAll("button.block")) {
    for (const event of ["pointerenter", "focus", "click"]) {
      block.addEventListener(event, () => show(block));
    }
  }
  const first = network.querySelector("button.layer");
  if (first) show(first);
}
for (const picture of document.querySelectorAll(".picture")) {
  picture.addEventListener("click", () => picture.parentElement.classList.toggle("wide"));
}
