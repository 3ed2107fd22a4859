"use strict";
// The page is complete without this. Once it has been painted, each drawing is replaced by one
// that answers the pointer; one that fails leaves the drawing as it was.
(() => {
  const settings = {
    actions: false,
    ast: true, // expressions are interpreted: the page's policy has no eval
    defaultStyle: false, // and no style sheet but its own
    renderer: "svg",
    tooltip: { theme: "custom", disableDefaultStyle: true },
  };

  function start() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("vega").textContent;
    document.body.append(script);
    const figures = [...document.querySelectorAll("figure[data-chart]")];
    figures.reduce((before, figure) => before.then(() => enliven(figure)), Promise.resolve())
      .then(() => { document.documentElement.dataset.charts = "live"; });
  }

  async function enliven(figure) {
    const still = figure.querySelector(".still");
    const live = figure.querySelector(".live");
    const specification = JSON.parse(figure.querySelector("script").textContent);
    live.hidden = false;
    live.classList.add("measuring");
    try {
      await window.vegaEmbed(live, specification, settings);
      still.hidden = true;
      figure.dataset.live = "yes";
    } catch (error) {
      live.hidden = true;
      console.error(`chart ${figure.dataset.chart}`, error);
    }
    live.classList.remove("measuring");
    await new Promise((resolve) => setTimeout(resolve));
  }

  // A link to a claim opens its table, and a print shows every table.
  addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.matches("article")) target.querySelector("details").open = true;
  });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  addEventListener("load", () => requestAnimationFrame(() => setTimeout(start)));
})();
